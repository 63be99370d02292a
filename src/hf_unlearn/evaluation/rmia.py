"""RMIA: whether forget samples stand out of the population more than samples that were never seen.

It needs a few reference models that never saw the forget samples, where `shadow` needs many that unlearned them.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .classification import Predictions
from .membership import check_logits, log_probabilities
from .metric import Metric, version_of
from .roc import auc, auc_interval, threshold_at, tpr_at

REFERENCES = 4


def log_of_label(p: Predictions) -> Tensor:
    """Return log p_y (N,) in float64, which is finite where p_y rounds to 0."""
    check_logits(p.logits, p.labels)
    return log_probabilities(p.logits).gather(1, p.labels.long()[:, None])[:, 0]


def log_ratio(target: Tensor, references: Tensor, scale: float = 1.0) -> Tensor:
    """Return log Pr(x | θ) - log Pr(x) (N,): how much better the model knows a sample than models that never saw it.

    Pr(x) = ((1 + a) mean_k Pr(x | θ_k) + 1 - a) / 2 (arXiv 2312.03262, offline form). With a = 1, the default, it is
    log p - log mean p_ref; a smaller `scale` stands for the half of the references that would have seen the sample.

    Args:
        target: (N,) log p_y under the attacked model.
        references: (R, N) log p_y under models that were not trained on the samples.
        scale: a in [0, 1].

    Raises:
        ValueError: the shapes differ, or a is outside.
    """
    if target.ndim != 1 or references.ndim != 2 or references.shape[1] != len(target) or len(references) == 0:
        shapes = f"target {tuple(target.shape)} and references {tuple(references.shape)}"
        raise ValueError(f"{shapes}: give (N,) and (R, N) of the same samples")
    if not 0 <= scale <= 1:
        raise ValueError(f"scale is a in [0, 1], got {scale}")
    unseen = references.logsumexp(0) - math.log(len(references))
    if scale == 1:
        return target - unseen  # exact where the mean rounds to 0
    return target - (((1 + scale) * unseen.exp() + 1 - scale) / 2).log()


def rmia_scores(ratios: Tensor, population: Tensor, gamma: float = 1.0, same: bool = False) -> Tensor:
    """Return Pr_z[LR(x, z) >= γ] (N,), the share of population samples that each sample is likelier than.

    LR(x, z) = (Pr(x | θ) / Pr(x)) / (Pr(z | θ) / Pr(z)) (RMIA, Zarifzadeh et al. 2024, arXiv 2312.03262).

    Args:
        ratios: (N,) what `log_ratio` gives for the samples.
        population: (M,) the same for samples z of the same kind that were never trained on.
        gamma: 1 asks whether x is the likelier one. The paper takes 2 on CIFAR; among samples that all models know
            well no pair reaches that.
        same: the samples are the population; then no sample is compared with itself.

    Raises:
        ValueError: there is no population to compare with, or γ is not above 0.
    """
    if gamma <= 0:
        raise ValueError(f"gamma must be above 0, got {gamma}")
    others = len(population) - same
    if others < 1:
        raise ValueError("no population: give samples of the same kind that no model was trained on")
    reached = (ratios[:, None] - population[None, :]) >= math.log(gamma)
    if same:
        reached.fill_diagonal_(False)
    return reached.double().sum(1) / others


@torch.no_grad()
def rmia(
    forget: Predictions,
    holdout: Predictions,
    references: Sequence[tuple[Predictions, Predictions]],
    gamma: float = 1.0,
    scale: float = 1.0,
) -> Metric:
    """Return the area under the ROC curve by which RMIA takes forget samples for members against held-out ones.

    The held-out samples are the population too, each without itself.

    Args:
        forget, holdout: outputs of the attacked model. The held-out samples are of the classes of the forget samples
            (`of_classes`), and no model was trained on them.
        references: the same of models that saw neither, each (forget, holdout).
        gamma: as in `rmia_scores`.
        scale: a of `log_ratio`.

    Returns:
        The area: 0.5 as if never seen, 1 where every forget sample stands out, below 0.5 where they are known worse
        than unseen ones. details holds its 95 % "interval", "tpr_at_1_fpr" and "tpr_at_10_fpr".

    Raises:
        ValueError: there are no references, they are of other samples, or what `log_ratio` and `rmia_scores` raise.
    """
    known = _ratios(forget, holdout, references, scale)
    members = rmia_scores(*known, gamma)
    strangers = rmia_scores(known[1], known[1], gamma, same=True)
    value = auc(members, strangers)
    return Metric(
        value=value,
        definition=f"area under the ROC curve of RMIA with {len(references)} reference models, forget samples against "
        "held-out ones; 0.5 is as never seen, good is a retrained model's",
        samples=len(members),
        library=version_of("torch"),
        details={
            "interval": list(auc_interval(value, len(members), len(strangers))),
            "tpr_at_1_fpr": tpr_at(members, strangers, 0.01),
            "tpr_at_10_fpr": tpr_at(members, strangers, 0.1),
            "holdout_samples": len(strangers),
            "references": len(references),
            "gamma": gamma,
            "scale": scale,
            "mean_log_ratio": known[0].mean().item(),
        },
    )


@torch.no_grad()
def rmia_members(
    forget: Predictions,
    holdout: Predictions,
    references: Sequence[tuple[Predictions, Predictions]],
    fpr: float = 0.1,
    gamma: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Return which forget samples (N,) bool RMIA takes for members.

    Half of the held-out samples, drawn by the seed, are the population. The threshold on the scores is the lowest that
    at most the share `fpr` of the other half exceeds.

    Args:
        others: as in `rmia`.

    Raises:
        ValueError: there are fewer than 2 held-out samples, or what `rmia` raises.
    """
    known, unseen = _ratios(forget, holdout, references, 1.0)
    if len(unseen) < 2:
        raise ValueError(f"{len(unseen)} held-out samples: one half is the population, the other sets the threshold")
    order = torch.randperm(len(unseen), generator=torch.Generator().manual_seed(seed))
    population, strangers = unseen[order[: len(unseen) // 2]], unseen[order[len(unseen) // 2 :]]
    return rmia_scores(known, population, gamma) > threshold_at(rmia_scores(strangers, population, gamma), fpr)


def _ratios(
    forget: Predictions, holdout: Predictions, references: Sequence[tuple[Predictions, Predictions]], scale: float
) -> tuple[Tensor, Tensor]:
    """`log_ratio` of the forget and of the held-out samples."""
    if not references:
        raise ValueError(
            "RMIA needs at least one reference model, and 4 in its cheap form: train some without the data"
        )
    ratios = []
    for part, (ours, theirs) in enumerate(
        ((forget, [r[0] for r in references]), (holdout, [r[1] for r in references]))
    ):
        if any(not torch.equal(r.labels, ours.labels) for r in theirs):
            raise ValueError(f"the references' {('forget', 'held-out')[part]} samples are not those of the model")
        ratios.append(log_ratio(log_of_label(ours), torch.stack([log_of_label(r) for r in theirs]), scale))
    return ratios[0], ratios[1]


def of_classes(p: Predictions, classes: Sequence[int]) -> Predictions:
    """Return the outputs of the samples whose label is one of `classes`. ValueError if there are none."""
    chosen = torch.isin(p.labels, torch.tensor(list(classes)))
    if not chosen.any():
        raise ValueError(
            f"no held-out sample is of the classes {sorted(set(classes))[:5]}: give some that were not seen"
        )
    return Predictions(p.logits[chosen], p.labels[chosen])
