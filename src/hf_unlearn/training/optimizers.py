"""The optimizer of a run: FastSlow around the stock optimizer, as the method asks for it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..methods.base import OptimizerSpec
from .compact import CompactAdamW
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
    if args.use_8bit_adam or args.bf16_weights:
        groups = [{**group} for group in base.param_groups]
        known = {name: base.defaults[name] for name in ("lr", "betas", "eps", "weight_decay", "fused")}
        base = CompactAdamW(groups, args.use_8bit_adam, seed=3 * args.seed, **known)
    asked = (
        (wishes.forget_optim, wishes.forget_learning_rate),
        (wishes.learn_optim, wishes.learn_learning_rate),
    )
    rates = [rate or args.learning_rate if kind == "separate" else None for kind, rate in asked]
    forget, learn = (None if rate is None else _adam(base, rate, args, i + 1) for i, rate in enumerate(rates))
    return FastSlow(base, forget, wishes.slow_rate, wishes.slow_form, buffers, args.offload, learn)


def _adam(base: Optimizer, rate: float, args: UnlearnConfig, number: int) -> Optimizer:
    """An Adam over the weights of `base`, without weight decay.

    Args:
        number: 1 or 2, so that optimizers of one run round differently.
    """
    groups = [{"params": group["params"]} for group in base.param_groups]
    options: dict[str, Any] = dict(
        lr=rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        weight_decay=0.0,
        fused=base.defaults.get("fused") or None,
    )
    if args.use_8bit_adam or args.masked_moments or args.bf16_weights:
        return CompactAdamW(groups, args.use_8bit_adam, args.masked_moments, 3 * args.seed + number, **options)
    return torch.optim.AdamW(groups, **options)
