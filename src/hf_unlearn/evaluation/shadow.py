"""The likelihood-ratio attack with shadow models (U-LiRA form): the stronger membership inference.

It compares, sample by sample, models that unlearned a sample with models that never saw it.
"""

import torch
from torch import Tensor

from .metric import Metric, version_of

VARIANCE_FLOOR = 1e-12  # models that agree to the last bit would otherwise give 0 / 0
PER_SAMPLE_VARIANCE = 8  # shadow models from which on a sample's own variance is worth more than the pooled one


def _log_density(target: Tensor, scores: Tensor) -> Tensor:
    """log N(target; mean, variance) (N,) without its constant, the Gaussian of each column of `scores` (S, N)."""
    variance = scores.var(0)
    if len(scores) < PER_SAMPLE_VARIANCE:
        variance = variance.mean().expand_as(variance)
    variance = variance.clamp(min=VARIANCE_FLOOR)
    return -((target - scores.mean(0)) ** 2 / variance + variance.log()) / 2


def likelihood_ratio(target: Tensor, with_forget: Tensor, without_forget: Tensor) -> Tensor:
    """log N(t; μ_with, σ²_with) - log N(t; μ_without, σ²_without) (N,); positive: trained on, then unlearned.

    U-LiRA (arXiv 2403.01218) after LiRA (arXiv 2112.03570). One Gaussian a sample and a side; with fewer than
    PER_SAMPLE_VARIANCE shadow models a side has one variance, the mean of its samples' variances.

    Args:
        target: (N,) scaled confidences of the forget samples under the attacked model.
        with_forget: (S, N) under shadow models trained with the samples that then unlearned them.
        without_forget: (S, N) under shadow models never trained on them; S may differ.

    Raises:
        ValueError: shapes do not fit, a score is not finite, or a side has fewer than 2 shadow models.
    """
    for scores in (with_forget, without_forget):
        if target.ndim != 1 or scores.ndim != 2 or scores.shape[1] != len(target):
            raise ValueError(
                f"shadow scores {tuple(scores.shape)}, target {tuple(target.shape)}: give (S, N) and (N,)"
            )
        if len(scores) < 2:
            raise ValueError("a variance needs at least 2 shadow models a side: give (S, N) scores with S >= 2")
        if not (target.isfinite().all() and scores.isfinite().all()):
            raise ValueError("scores are not finite: leave diverged models out, and take `scaled_confidence`")
    target = target.double()
    return _log_density(target, with_forget.double()) - _log_density(target, without_forget.double())


def ulira(unlearned: Tensor, retrained: Tensor) -> Metric:
    """Balanced accuracy (0 to 1) of U-LiRA: 0.5 if unlearned models cannot be told from retrained ones, 1 if always.

    Model i of both sides is held out in turn, the Gaussians are fitted on the others, and each sample is judged
    unlearned where `likelihood_ratio` > 0.

    Args:
        unlearned: (S, N) scaled confidences of N forget samples under S models trained with and then unlearned them.
        retrained: (S, N) under S models never trained on them.

    Returns:
        details: "auc" and "tpr_at_1_fpr" (share of unlearned scores above all but 1 % of the retrained ones) of
        all held-out scores pooled; below 100 retrained scores that is above all of them.

    Raises:
        ValueError: shapes differ, fewer than 3 models a side, or what `likelihood_ratio` raises.
    """
    if unlearned.shape != retrained.shape or unlearned.ndim != 2 or unlearned.numel() == 0:
        raise ValueError(f"scores {tuple(unlearned.shape)} and {tuple(retrained.shape)}: give (S, N) for both")
    models, samples = unlearned.shape
    if models < 3:
        raise ValueError(f"U-LiRA holds one model out and needs 2 to fit: give S >= 3 models a side, not {models}")
    rest = [torch.arange(models) != i for i in range(models)]
    scores = [
        torch.cat([likelihood_ratio(side[i], unlearned[rest[i]], retrained[rest[i]]) for i in range(models)])
        for side in (unlearned, retrained)
    ]
    positive, negative = scores[0], scores[1].sort().values
    # A pair of equal scores counts half, as in the area under the curve.
    beaten = torch.searchsorted(negative, positive) + torch.searchsorted(negative, positive, right=True)
    threshold = negative[len(negative) - 1 - len(negative) // 100]
    return Metric(
        value=((positive > 0).double().mean() + (negative <= 0).double().mean()).item() / 2,
        definition="mean balanced accuracy of U-LiRA on held-out models, unlearned=1 against retrained=0; "
        "0.5 is indistinguishable from retraining",
        samples=samples,
        library=version_of("torch"),
        details={
            "auc": beaten.double().mean().item() / (2 * len(negative)),
            "tpr_at_1_fpr": (positive > threshold).double().mean().item(),
            "models": models,
        },
    )
