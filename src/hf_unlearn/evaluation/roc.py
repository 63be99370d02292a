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


def tpr_at(positive: Tensor, negative: Tensor, fpr: float) -> float:
    """Return the share of positives above the lowest threshold that at most the share `fpr` of negatives exceeds.

    With fewer than 1 / `fpr` negatives the threshold is above all of them.
    """
    allowed = int(fpr * len(negative) + 1e-9)  # 0.1 of 30 is 3 and not 2
    threshold = negative.sort(descending=True).values[allowed]
    return (positive > threshold).double().mean().item()


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
