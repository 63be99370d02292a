"""The likelihood-ratio attack with shadow models (U-LiRA), the stronger membership inference.

It compares models that unlearned a sample with models that never saw it, sample by sample.
"""

import torch
from torch import Tensor

from .metric import Metric, version_of
from .roc import auc, tpr_at

VARIANCE_FLOOR = 1e-12  # otherwise models that agree to the last bit would give 0 / 0
PER_SAMPLE_VARIANCE = 8  # with fewer shadow models than this, the variance is pooled over samples


def _log_density(target: Tensor, scores: Tensor) -> Tensor:
    """Return log N(target; mean, variance) (N,) without its constant, for the Gaussian of each column of `scores`."""
    variance = scores.var(0)
    if len(scores) < PER_SAMPLE_VARIANCE:
        variance = variance.mean().expand_as(variance)
    variance = variance.clamp(min=VARIANCE_FLOOR)
    return -((target - scores.mean(0)) ** 2 / variance + variance.log()) / 2


def likelihood_ratio(target: Tensor, with_forget: Tensor, without_forget: Tensor) -> Tensor:
    """Return log N(t; μ_with, σ²_with) - log N(t; μ_without, σ²_without) (N,), positive for unlearned samples.

    This is U-LiRA (arXiv 2403.01218) after LiRA (arXiv 2112.03570), with one Gaussian for each sample and side. A side
    with fewer than PER_SAMPLE_VARIANCE shadow models has one variance, the mean of its samples' variances.

    Args:
        target: (N,) scaled confidences of the forget samples under the attacked model.
        with_forget: (S, N) under shadow models that were trained with the samples and then unlearned them.
        without_forget: (S, N) under shadow models that were never trained on them. S may differ.

    Raises:
        ValueError: the shapes differ, a score is not finite, or a side has fewer than 2 shadow models.
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


def held_out_ratios(unlearned: Tensor, retrained: Tensor) -> tuple[Tensor, Tensor]:
    """Return `likelihood_ratio` of every unlearned and of every retrained model, (S, N) each.

    Model i of both sides is held out in turn, and the Gaussians are fitted on the others.

    Args:
        unlearned, retrained: (S, N), as in `ulira`.

    Raises:
        ValueError: the shapes differ, a side has fewer than 3 models, or what `likelihood_ratio` raises.
    """
    if unlearned.shape != retrained.shape or unlearned.ndim != 2 or unlearned.numel() == 0:
        raise ValueError(f"scores {tuple(unlearned.shape)} and {tuple(retrained.shape)}: give (S, N) for both")
    models = len(unlearned)
    if models < 3:
        raise ValueError(f"U-LiRA holds one model out and needs 2 to fit: give S >= 3 models a side, not {models}")
    rest = [torch.arange(models) != i for i in range(models)]
    sides = [
        torch.stack([likelihood_ratio(side[i], unlearned[rest[i]], retrained[rest[i]]) for i in range(models)])
        for side in (unlearned, retrained)
    ]
    return sides[0], sides[1]


def ulira(unlearned: Tensor, retrained: Tensor) -> Metric:
    """Return the balanced accuracy of U-LiRA: 0.5 if unlearned and retrained models look the same, 1 if they never do.

    Model i of both sides is held out in turn. The Gaussians are fitted on the others, and a sample counts as unlearned
    where `likelihood_ratio` > 0.

    Args:
        unlearned: (S, N) scaled confidences of N forget samples under S models that were trained with and then
            unlearned them.
        retrained: (S, N) under S models that were never trained on them.

    Returns:
        The accuracy, with "auc" and "tpr_at_1_fpr" of all held-out scores pooled in its details. The latter is the
        share of unlearned scores above all but 1 % of the retrained ones, or above all of them if they are under 100.

    Raises:
        ValueError: the shapes differ, a side has fewer than 3 models, or what `likelihood_ratio` raises.
    """
    positive, negative = (side.flatten() for side in held_out_ratios(unlearned, retrained))
    return Metric(
        value=((positive > 0).double().mean() + (negative <= 0).double().mean()).item() / 2,
        definition="mean balanced accuracy of U-LiRA on held-out models, unlearned=1 against retrained=0; "
        "0.5 is indistinguishable from retraining",
        samples=unlearned.shape[1],
        library=version_of("torch"),
        details={
            "auc": auc(positive, negative),
            "tpr_at_1_fpr": tpr_at(positive, negative, 0.01),
            "models": len(unlearned),
        },
    )
