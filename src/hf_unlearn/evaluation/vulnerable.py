"""The likelihood-ratio attack on the forget samples that training shows most, with true positives at a small FPR.

An average over all forget samples hides the few that a model would give away: most samples look the same to models
that saw them and to models that did not, whatever was done.
"""

import torch
from torch import Tensor

from .metric import Metric, version_of
from .roc import auc, tpr_at
from .shadow import VARIANCE_FLOOR, held_out_ratios

LEAST_SHADOWS = 16
RESAMPLES = 1000


def vulnerability(members: Tensor, strangers: Tensor) -> Tensor:
    """Return |μ_in - μ_out| / √((σ²_in + σ²_out) / 2) (N,): how far training on a sample moves its score.

    Args:
        members: (S, N) scaled confidences (`scaled_confidence`) under models trained on the samples, not unlearned.
        strangers: (S', N) under models that were not trained on them.

    Raises:
        ValueError: the numbers of samples differ, or a side has fewer than 2 models.
    """
    if members.ndim != 2 or strangers.ndim != 2 or members.shape[1] != strangers.shape[1]:
        raise ValueError(
            f"scores {tuple(members.shape)} and {tuple(strangers.shape)}: give (S, N) of the same samples"
        )
    if min(len(members), len(strangers)) < 2:
        raise ValueError("a variance needs at least 2 shadow models a side")
    inside, outside = members.double(), strangers.double()
    spread = ((inside.var(0) + outside.var(0)) / 2).clamp(min=VARIANCE_FLOOR).sqrt()
    return (inside.mean(0) - outside.mean(0)).abs() / spread


def most_vulnerable(members: Tensor, strangers: Tensor, share: float = 0.1, least: int = 10) -> Tensor:
    """Return the positions, sorted, of the `share` of samples with the largest `vulnerability`, of at least `least`.

    All of them where there are no more. Of equal ones the first are taken.

    Raises:
        ValueError: the share is not in (0, 1], or what `vulnerability` raises.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    scores = vulnerability(members, strangers)
    count = min(len(scores), max(least, round(share * len(scores))))
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def vulnerable_ratio(
    unlearned: Tensor, retrained: Tensor, chosen: Tensor, least_shadows: int = LEAST_SHADOWS, seed: int = 0
) -> Metric:
    """Return the share of vulnerable samples that the likelihood-ratio attack finds at 1 % of false positives.

    As U-LiRA (`shadow.ulira`), with one Gaussian for each sample and side and model i of both sides held out in turn;
    positives are scores under unlearned models, negatives those under retrained ones.

    Args:
        unlearned: (S, N) scaled confidences of the forget samples under models that were trained on and unlearned
            them. The original without unlearning gives the ceiling, other retrained models give what chance makes.
        retrained: (S, N) under models that were never trained on them.
        chosen: positions of the samples that count, what `most_vulnerable` gives for original against retrained.
        least_shadows: refuse fewer models a side.
        seed: of the resampling for the intervals.

    Returns:
        The rate, of which 0.01 is chance. details holds "auc" and "tpr_at_10_fpr", and the 95 % intervals of the rate
        and of the area: models and samples are both drawn anew with replacement (Owen 2007, pigeonhole bootstrap),
        because the scores of one model or of one sample are not independent.

    Raises:
        ValueError: there are too few models, no samples are chosen, or what `ulira` raises.
    """
    if min(len(unlearned), len(retrained)) < least_shadows:
        raise ValueError(
            f"{min(len(unlearned), len(retrained))} shadow models a side: rates at 1 % of false positives need "
            f"{least_shadows} or more"
        )
    if len(chosen) == 0:
        raise ValueError("no sample is chosen: give the positions of the vulnerable ones")
    positive, negative = held_out_ratios(unlearned[:, chosen], retrained[:, chosen])
    generator = torch.Generator().manual_seed(seed)
    models, samples = positive.shape
    drawn = []
    for _ in range(RESAMPLES):
        rows = [torch.randint(models, (models,), generator=generator) for _ in range(2)]
        columns = torch.randint(samples, (samples,), generator=generator)
        first, second = (side[row][:, columns].flatten() for side, row in zip((positive, negative), rows))
        drawn.append((tpr_at(first, second, 0.01), auc(first, second)))
    low, high = torch.tensor(drawn, dtype=torch.float64).quantile(torch.tensor([0.025, 0.975]).double(), dim=0)
    positive, negative = positive.flatten(), negative.flatten()
    return Metric(
        value=tpr_at(positive, negative, 0.01),
        definition=f"true positives at 1 % false ones of the likelihood-ratio attack on the {samples} most vulnerable "
        f"forget samples, {models} shadow models a side, unlearned=1 against retrained=0; 0.01 is chance",
        samples=samples,
        library=version_of("torch"),
        details={
            "interval": [low[0].item(), high[0].item()],
            "auc": auc(positive, negative),
            "auc_interval": [low[1].item(), high[1].item()],
            "tpr_at_10_fpr": tpr_at(positive, negative, 0.1),
            "models": models,
            "of_samples": unlearned.shape[1],
        },
    )
