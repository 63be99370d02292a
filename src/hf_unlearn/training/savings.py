"""Options that save memory in the training of all weights: what they do to the network, and where they do not fit."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..common.precisions import bring_to, note_stored, precision_of, stored_precision, take_any
from ..families import Objective
from ..methods import Method
from ..saliency.bases import QUANTISED, check_base
from .config import UnlearnConfig


def lower_weights(objective: Objective, args: UnlearnConfig) -> Objective:
    """With `bf16_weights`, keep the network in bfloat16 from here on. It is written in the precision that it came in.

    Returns:
        The objective.

    Raises:
        ValueError: an adapter is trained, or the network has running statistics.
    """
    network: nn.Module = objective.network
    if not args.bf16_weights:
        return objective
    if objective.adapter is not None:
        raise ValueError("bf16_weights is for weights, and an adapter is trained: set base_precision='bf16' instead")
    norm = running_statistics(network)
    if norm:
        raise ValueError(f"the running statistics of {norm} would be lost in bfloat16: leave bf16_weights out")
    if stored_precision(network) is None:
        note_stored(network, precision_of(network))
    bring_to(network, torch.bfloat16)
    take_any(network)
    return objective


def running_statistics(network: nn.Module) -> str:
    """The class of a normalisation that has running statistics, which bfloat16 would lose; "" where there is none."""
    return next((type(m).__name__ for m in network.modules() if isinstance(m, _BatchNorm)), "")


def check_savings(objective: Objective, method: Method, args: UnlearnConfig, sharded: bool) -> None:
    """Raise ValueError, with what to set, for options that save memory where they do not work.

    Args:
        method: as it runs on this model and these sets.
        sharded: whether FSDP shards the weights.
    """
    given = {"bf16_weights": args.bf16_weights, "masked_moments": args.masked_moments}
    given |= {"use_8bit_adam": args.use_8bit_adam, "original_precision": args.original_precision != "fp32"}
    named = [name for name, value in given.items() if value]
    if named and sharded:
        raise ValueError(f"{named[0]} and FSDP are two ways to the same room: leave {named[0]} out")
    if args.masked_moments:
        if objective.adapter is not None or getattr(method, "use_mask", True) is False or not method.fast_steps:
            raise ValueError("masked_moments keeps the moments of weights in a mask, and there is none: leave it out")
        if "separate" not in (method.optimizer.forget_optim, method.optimizer.learn_optim):
            raise ValueError(
                "masked_moments is for an optimizer of the forget steps alone: set forget_optim='separate'"
            )
    if args.bf16_weights and (method.optimizer.slow_rate < 1 or method.optimizer.slow_form == "ema"):
        raise ValueError(
            "slow weights follow in steps that bfloat16 loses: set slow_rate=1, or leave bf16_weights out"
        )
    if args.original_precision != "fp32":
        _check_original(objective, method, args)


def _check_original(objective: Objective, method: Method, args: UnlearnConfig) -> None:
    named = f"original_precision {args.original_precision}"
    if not method.needs_original or objective.adapter is not None:
        raise ValueError(f"{named} is for a copy of the original, and none is kept: leave it out")
    sizes = [(p.numel(), p.requires_grad) for p in objective.network.parameters()]
    if sum(count for count, trained in sizes if trained) < sum(count for count, _ in sizes) / 2:
        raise ValueError(f"{named} is for all weights: of a part the original shares those that are frozen")
    check_base(args.original_precision)
    if args.offload and args.original_precision in QUANTISED:
        raise ValueError(f"{named} stays on the device: leave offload out")
