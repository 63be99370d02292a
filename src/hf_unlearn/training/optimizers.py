"""The optimizer of a run: FastSlow around the stock optimizer, as the method asks for it."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..methods.base import OptimizerSpec
from .config import UnlearnConfig
from .optim import FastSlow


def fast_slow_around(
    base: Optimizer, wishes: OptimizerSpec, args: UnlearnConfig, buffers: Iterable[Tensor]
) -> FastSlow:
    """FastSlow around the stock optimizer of the retain steps, with those of other steps that a method asks for.

    Args:
        wishes: `Method.optimizer`.
        args: they give the learning rate and Adam's constants of separate optimizers.
        buffers: floating-point buffers that are merged like weights.
    """
    base.param_groups[:] = [group for group in base.param_groups if group["params"]]
    asked = (
        (wishes.forget_optim, wishes.forget_learning_rate),
        (wishes.learn_optim, wishes.learn_learning_rate),
    )
    rates = [rate or args.learning_rate if kind == "separate" else None for kind, rate in asked]
    forget, learn = (None if rate is None else _adam(base, rate, args) for rate in rates)
    return FastSlow(base, forget, wishes.slow_rate, wishes.slow_form, buffers, args.offload, learn)


def _adam(base: Optimizer, rate: float, args: UnlearnConfig) -> Optimizer:
    """An Adam over the weights of `base`, without weight decay."""
    return torch.optim.AdamW(
        [{"params": group["params"]} for group in base.param_groups],
        lr=rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        weight_decay=0.0,
        fused=base.defaults.get("fused") or None,
    )
