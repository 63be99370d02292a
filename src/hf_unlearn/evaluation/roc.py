"""How well scores separate two kinds: area under the ROC curve and true positives at a small rate of false ones."""

import math

import torch
from torch import Tensor

Z = 1.959964  # of a 95 % interval


def auc(positive: Tensor, negative: Tensor) -> float:
    """Return Pr[a positive's score > a negative's], in which a pair of equal scores counts half.

    Args:
        positive, negative: (P,) and (N,) scores.
    """
    ordered = negative.sort().values
    beaten = torch.searchsorted(ordered, positive) + torch.searchsorted(ordered, positive, right=True)
    return beaten.double().mean().item() / (2 * len(negative))


def threshold_at(negative: Tensor, fpr: float) -> float:
    """Return the lowest threshold that at most the share `fpr` of negatives (N,) exceeds.

    With fewer than 1 / `fpr` negatives none of them does.
    """
    allowed = int(fpr * len(negative) + 1e-9)  # 0.29 of 100 is 29 and not 28
    return negative.sort(descending=True).values[min(allowed, len(negative) - 1)].item()


def tpr_at(positive: Tensor, negative: Tensor, fpr: float) -> float:
    """Return the share of positives (P,) above `threshold_at`."""
    return (positive > threshold_at(negative, fpr)).double().mean().item()


def auc_interval(value: float, positives: int, negatives: int) -> tuple[float, float]:
    """Return the 95 % interval of an area under the curve, which has a width at 0 and 1 too.

    Newcombe 2006 (Statistics in Medicine 25, p. 559, method 5): both solutions A of (value - A)² = z² V(A) with
    V(A) = A (1 - A) (2M - 1 - (3M - 3) / ((2 - A)(1 + A))) / (mn), M = (m + n) / 2. At the value itself V is the
    variance of Hanley & McNeil 1982.

    Args:
        value: the area.
        positives, negatives: m and n, the numbers of independent scores.

    Raises:
        ValueError: one of the two kinds has no scores.
    """
    if positives < 1 or negatives < 1:
        raise ValueError(f"an area of {positives} positives and {negatives} negatives has no interval")
    mean = (positives + negatives) / 2

    def outside(a: float) -> bool:
        variance = a * (1 - a) * (2 * mean - 1 - (3 * mean - 3) / ((2 - a) * (1 + a))) / (positives * negatives)
        return abs(value - a) > Z * math.sqrt(variance)

    return _edge(0.0, value, outside), _edge(1.0, value, outside)


def _edge(far: float, near: float, outside) -> float:
    """The point between `far` and `near` from which on nothing is outside, to 1e-12."""
    if not outside(far):
        return far
    while abs(far - near) > 1e-12:
        middle = (far + near) / 2
        far, near = (middle, near) if outside(middle) else (far, middle)
    return near
