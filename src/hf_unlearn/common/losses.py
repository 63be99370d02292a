"""Reduce per-sample losses `(B,)` to the scalar that is differentiated.

With several processes every reduction is over the *global* batch. Each process returns its own terms times the number
of processes, so the mean that DistributedDataParallel takes of the gradients, and that of the logged values, equals
the value of a single process.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of processes that share a batch (1 when torch.distributed is not running)."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def global_sum(value: Tensor) -> Tensor:
    """Sum `value`, detached, over all processes. With one process this is `value` itself."""
    value = value.detach()
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def masked_mean(losses: Tensor, mask: Tensor) -> Tensor:
    """Average `losses` (B,) where `mask` (B,) is True, over the global batch. The mean of no samples is 0.

    `mask` is the *sample* mask of a mixed forget/retain batch, not the weight mask of `saliency`.

    Raises:
        ValueError: the two shapes differ.
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
    """Return weights (B,) without gradient that are larger for samples with a smaller loss and sum to 1 globally.

    w_i ∝ 1 / (max(l_i / s_i, floor)^exponent + eps)                (SFR-on, arXiv 2409.19732, section 4)

    Args:
        exponent: λ of the paper. 0 gives equal weights.
        floor: lower bound of the losses. Without one, a sample whose loss is exactly 0 takes all the weight and the
            step vanishes.
        scale: `s_i` (B,), the typical loss at the same timestep. None is 1; then 1/l^λ mostly re-weights timesteps.
        active: bool (B,); all other samples get weight 0 (bounded ascent). If none is active all weights are 0.
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
    """Average `losses` (B,) with weights that fall with a sample's loss.

    Σ w_i l_i with the weights of `adaptive_weights`, which gets `options`. `exponent=0` is the plain mean.
    """
    return (adaptive_weights(losses, exponent, **options) * losses).sum() * world_size()


def spread(length: int, count: int) -> list[int]:
    """Return at most `count` positions, spread evenly over `length`."""
    count = min(length, count)
    return [i * length // count for i in range(count)]


def log_rest(losses: Tensor) -> Tensor:
    """log(1 - p) of the probability p = exp(-loss), which counts as at most 1 - 1e-6."""
    return torch.log1p(-torch.exp(-losses).clamp(max=1 - 1e-6))


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """log(p_y / (1 - p_y)) of each sample (B,), as z_y - log Σ_{j≠y} exp(z_j): finite where p_y rounds to 0 or 1.

    Args:
        logits: (B, classes).
        labels: (B,) int64.
    """
    rows = labels[:, None]
    return logits.gather(1, rows)[:, 0] - logits.scatter(1, rows, -torch.inf).logsumexp(1)
