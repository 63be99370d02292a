"""Reductions of per-sample losses `(B,)` to the scalar that is differentiated.

Under several processes every reduction is over the *global* batch: a process returns its own terms times
the number of processes, so that the mean that DistributedDataParallel takes of the gradients (and `gather`
of the logged values) is the value a single process would have had.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes that share a batch (1 when torch.distributed is not running)."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def global_sum(value: Tensor) -> Tensor:
    """Sum of a detached `value` over all processes; `value` itself for one process."""
    value = value.detach()
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def masked_mean(losses: Tensor, mask: Tensor) -> Tensor:
    """Mean of `losses` (B,) where `mask` (B,) is True, over the global batch; 0 if the mask is empty everywhere.

    The *sample* mask of a mixed forget/retain batch (not the weight mask of `saliency`).

    Raises:
        ValueError: if the two shapes differ.
    """
    if losses.shape != mask.shape:
        raise ValueError(f"losses have shape {tuple(losses.shape)} but the sample mask {tuple(mask.shape)}")
    count = global_sum(mask.sum().to(losses.dtype)).clamp(min=1)
    return torch.where(mask, losses, torch.zeros_like(losses)).sum() / count * world_size()


def adaptive_weights(
    losses: Tensor,
    exponent: float,
    floor: float = 0.0,
    scale: Tensor | None = None,
    active: Tensor | None = None,
    eps: float = 1e-8,
) -> Tensor:
    """Weights (B,) without gradient, larger for samples whose loss is still small; they sum to 1 globally.

    w_i ∝ 1 / (max(l_i / s_i, floor)^exponent + eps)                (SFR-on, arXiv 2409.19732, section 4)

    Args:
        exponent: λ of the paper; 0 gives equal weights.
        floor: lower bound under the losses. Without one, a sample whose loss is exactly 0 takes all the weight
            and the step vanishes.
        scale: `s_i` (B,), what a typical sample loses at the same timestep; None is 1. Without it 1/l^λ mostly
            re-weights timesteps.
        active: (B,) bool; samples outside get weight 0 (bounded ascent). All weights are 0 if none is active.
    """
    relative = losses.detach().float()
    if scale is not None:
        relative = relative / scale
    weights = 1 / (relative.clamp(min=floor) ** exponent + eps)
    if active is not None:
        weights = weights * active
    total = global_sum(weights.sum())
    return torch.where(total > 0, weights / total.clamp(min=torch.finfo(weights.dtype).tiny), weights)


def adaptive_mean(losses: Tensor, exponent: float, **options: Any) -> Tensor:
    """Weighted mean of `losses` (B,): the larger a sample's loss already is, the less it counts.

    Σ w_i l_i with the weights of `adaptive_weights`, whose `options` these are; `exponent=0` is the plain mean.
    """
    return (adaptive_weights(losses, exponent, **options) * losses).sum() * world_size()


def spread(length: int, count: int) -> list[int]:
    """At most `count` positions spread evenly over `length`."""
    count = min(length, count)
    return [i * length // count for i in range(count)]
