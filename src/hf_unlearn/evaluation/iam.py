"""IAM: how far each forget sample is unlearnt, between a model that fits it and one that never saw it.

It needs one shadow model, where the likelihood-ratio attack of `shadow` needs several on each side.
"""

import math

import torch
from torch import Tensor

from .membership import confidence
from .metric import Metric, version_of

LOSS_FLOOR, PROBABILITY_FLOOR = 1e-2, 1e-5  # ε1 and ε2 of the paper
POINTS = 100  # between the shadow model and the original
EULER = 0.5772  # the mean of a standard Gumbel variable, to the digits of the paper
SPREAD_FLOOR = 1e-10  # scores that are all the same have no spread to divide by


def fitting_score(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how well each sample is fitted (N,), from 0 where p_y = 0 to 1 where p_y = 1.

    It is -log(ε1 - log(p_y + ε2)), which is nearly Gumbel over models, scaled by its own smallest and largest value.

    Args:
        logits: (N, C).
        labels: (N,).

    Raises:
        ValueError: what `check_logits` raises.
    """

    def score(p: Tensor) -> Tensor:
        return -(LOSS_FLOOR - (p + PROBABILITY_FLOOR).log()).log()

    low, high = score(torch.tensor([0.0, 1.0], dtype=torch.float64))
    return (score(confidence(logits, labels)) - low) / (high - low)


def membership_scores(unlearned: Tensor, original: Tensor, shadow: Tensor) -> Tensor:
    """Return the membership of each sample (N,): 0 as never seen, towards 1 as fitted or better.

    Interpolated approximate measurement (Wang et al., USENIX Security 2025, arXiv 2506.06112) with one shadow model.
    For α_j = j / 99 it puts a Gumbel distribution F_j at μ_j = s_shadow + α_j (s_original - s_shadow), with the
    standard deviation of μ_j over samples, and averages where the unlearned model's score falls:
    Σ_j α_{j+1} F_j(s) / Σ_j α_{j+1} over j = 0..98.

    Args:
        unlearned, original, shadow: (N,) what `fitting_score` gives for the same samples under the three models. The
            shadow model was never trained on them.

    Raises:
        ValueError: the shapes differ.
    """
    if unlearned.ndim != 1 or not unlearned.shape == original.shape == shadow.shape:
        shapes = ", ".join(str(tuple(scores.shape)) for scores in (unlearned, original, shadow))
        raise ValueError(f"scores have shapes {shapes}: give (N,) of the same samples for all three models")
    alphas = torch.linspace(0, 1, POINTS, dtype=torch.float64)[:, None]
    centres = shadow + alphas[:-1] * (original - shadow)
    spread = centres.std(1, correction=0, keepdim=True).clamp(min=SPREAD_FLOOR)
    scale = math.sqrt(6) * spread / math.pi
    below = torch.exp(-torch.exp(-(unlearned - centres + EULER * scale) / scale))
    return (alphas[1:] * below).sum(0) / alphas[1:].sum()


@torch.no_grad()
def unlearning_score(unlearned: Tensor, original: Tensor, shadow: Tensor, labels: Tensor) -> Metric:
    """Return the average over samples of 1 - `membership_scores`, from 0 (still fitted) to 1.

    The ideal value is that of a retrained model other than the shadow: less is unlearnt too little, more too much.

    Args:
        unlearned, original, shadow: (N, C) logits on the forget samples.
        labels: (N,).

    Raises:
        ValueError: what `fitting_score` and `membership_scores` raise.
    """
    scores = [fitting_score(logits, labels) for logits in (unlearned, original, shadow)]
    found = 1 - membership_scores(*scores)
    return Metric(
        value=found.mean().item(),
        definition="mean IAM unlearning score of the forget samples (one shadow model), 0 as the original fits them; "
        "good is a retrained model's score",
        samples=len(found),
        library=version_of("torch"),
        details={"spread_over_samples": found.std(correction=0).item()},
    )
