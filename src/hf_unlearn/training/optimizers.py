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
    """FastSlow around the stock optimizer of the retain steps, with the forget optimizer that a method asks for.

    Args:
        wishes: `Method.optimizer`.
        args: they give the learning rate and Adam's constants of a separate forget optimizer.
        buffers: floating-point buffers that are merged like weights.
    """
    base.param_groups[:] = [group for group in base.param_groups if group["params"]]
    forget = None
    if wishes.forget_optim == "separate":
        rate = wishes.forget_learning_rate or args.learning_rate
        groups = [{"params": group["params"]} for group in base.param_groups]
        fused = base.defaults.get("fused") or None
        forget = torch.optim.AdamW(
            groups,
            lr=rate,
            betas=(args.adam_beta1, args.adam_beta2),
            eps=args.adam_epsilon,
            weight_decay=0.0,
            fused=fused,
        )
    return FastSlow(base, forget, wishes.slow_rate, wishes.slow_form, buffers, args.offload)
