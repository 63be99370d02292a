"""Which samples a classifier learns slowly: those on which it is still uncertain after a few epochs.

Selection as in USEFUL and TADA (arXiv 2505.21574, section 4): early in training, k-means splits the outputs of each
class in two, and the cluster with the higher mean loss is the slow-learnt one. The other rules are there to compare.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..common.limits import SEEDS, check_limits
from ..data.class_names import names_of
from ..data.pairs import labels_of
from ..data.protocols import SizedDataset
from ..evaluation.classification import predictions

Rule = Literal["clusters", "loss", "misclassified", "random", "all"]
Outputs = Literal["probabilities", "logits"]
RULES: tuple[str, ...] = get_args(Rule)
SHARE = 0.35  # of a class that `loss` and `random` take where nothing is said; the paper's clusters hold 30 to 40 %


@dataclass(frozen=True)
class Slow:
    """Slow-learnt samples of a data set.

    positions: where they are in the data set, sorted. rule: how they were found.
    losses: (N,) cross-entropy of every sample of the data set. labels: (N,) their classes.
    """

    positions: list[int]
    rule: str
    losses: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)

    @property
    def share(self) -> float:
        """The slow-learnt part of the data set, from 0 to 1."""
        return len(self.positions) / len(self.losses)

    @property
    def per_class(self) -> dict[int, int]:
        """How many samples of each class are slow-learnt, by class number."""
        chosen = self.labels[self.positions].tolist()
        return {label: chosen.count(label) for label in sorted({int(c) for c in self.labels})}


def find_slow_learnt(
    model: Any,
    dataset: SizedDataset,
    by: Rule = "clusters",
    share: float | None = None,
    seed: int = 0,
    outputs: Outputs = "probabilities",
    classes: Sequence[int] | None = None,
    batch_size: int = 256,
) -> Slow:
    """Find the samples of `dataset` that `model`, a classifier after a few epochs, has not learnt yet.

    Args:
        model: A transformers image classifier.
        dataset: Items with "pixel_values" (C, H, W) and "labels", as the classifier takes them.
        by: "clusters" takes of each class the k-means cluster (k = 2) of the outputs whose mean loss is higher;
            "loss" the `share` of each class with the highest losses; "misclassified" all that are read as another
            class; "random" a `share` of each class, drawn by `seed`; "all" everything.
        share: For "loss" and "random", in (0, 1]; by default 0.35.
        outputs: What is clustered: probabilities, which the loss is taken of, or logits. The papers say "outputs".
        classes: Classes that must have samples; by default all of the classifier's.

    Raises:
        ValueError: a class has no sample, no sample is slow-learnt, the rule is unknown, or `share` is not for it.
    """
    share = _checked(by, share, outputs, seed)
    labels = labels_of(dataset)
    if labels is None:
        raise ValueError("the data has no labels, so nothing can be slow to learn: give items with 'labels'")
    check_classes(labels, model, classes)
    found = predictions(model, dataset, batch_size)
    losses = torch.nn.functional.cross_entropy(found.logits, found.labels, reduction="none")
    seen = found.logits.softmax(1) if outputs == "probabilities" else found.logits
    positions: list[int] = []
    for number in sorted(set(labels)):
        own = (found.labels == number).nonzero().flatten()
        if by == "clusters":
            chosen = _slow_cluster(seen[own], losses[own], seed)
        elif by == "misclassified":
            chosen = found.logits[own].argmax(1) != number
        else:
            chosen = _share_of(losses[own], by, share, seed + number)
        positions += own[chosen].tolist()
    if not positions:
        raise ValueError(
            f"no sample is slow-learnt by {by}: the model knows all {len(losses)} of them alike, find them after "
            "fewer epochs, or by='loss'"
        )
    return Slow(sorted(positions), by, losses, found.labels)


def check_classes(labels: Sequence[int], model: Any, classes: Sequence[int] | None = None) -> None:
    """Raise ValueError if one of `classes`, by default all of the classifier's, has no sample."""
    wanted = range(model.config.num_labels) if classes is None else classes
    lost = sorted(set(wanted) - set(labels))
    if lost:
        raise ValueError(
            f"class {names_of(lost[:1], model.config)[0]} has no samples: add some, or say with classes which of the "
            f"classifier's {model.config.num_labels} classes the data has"
        )


def _checked(by: str, share: float | None, outputs: str, seed: int) -> float:
    if by not in RULES:
        raise ValueError(f"by {by!r} is not one of {', '.join(RULES)}")
    if outputs not in get_args(Outputs):
        raise ValueError(f"outputs {outputs!r} is not one of {', '.join(get_args(Outputs))}")
    if share is not None and by not in ("loss", "random"):
        raise ValueError(f"share is for by='loss' and by='random': {by} finds itself how many samples are slow-learnt")
    asked = _Asked(SHARE if share is None else share, seed)
    check_limits(asked, share="(0, 1]", seed=SEEDS)
    return asked.share


@dataclass
class _Asked:
    share: float
    seed: int


def _slow_cluster(outputs: Tensor, losses: Tensor, seed: int) -> Tensor:
    """(n,) bool: samples of the k-means cluster with the higher mean loss; none where the outputs are one point."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    none = torch.zeros(len(losses), dtype=torch.bool)
    if len(losses) < 2:
        return none
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters: said below
        found = KMeans(2, n_init=10, random_state=seed).fit_predict(outputs.double().numpy())
    cluster = torch.from_numpy(found)
    means = [losses[cluster == side].mean() if (cluster == side).any() else None for side in (0, 1)]
    if means[0] is None or means[1] is None:
        return none
    return cluster == int(means[1] > means[0])


def _share_of(losses: Tensor, by: str, share: float, seed: int) -> Tensor:
    """(n,) bool: the highest losses, random samples, or all."""
    if by == "all":
        return torch.ones(len(losses), dtype=torch.bool)
    count = max(1, round(share * len(losses)))
    if by == "loss":
        order = losses.argsort(descending=True, stable=True)
    else:
        order = torch.randperm(len(losses), generator=torch.Generator().manual_seed(seed))
    chosen = torch.zeros(len(losses), dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen


def elbow(errors: Sequence[float]) -> int:
    """Return the epoch, counted from 1, from which on a falling curve of training errors falls more slowly.

    It is the point farthest below the straight line from the first error to the last (the knee of Satopää et al. 2011,
    "Finding a Kneedle in a Haystack"), the first of several.

    Args:
        errors: One after each epoch.

    Raises:
        ValueError: there are fewer than three epochs, or the error does not fall.
    """
    if len(errors) < 3:
        raise ValueError(f"an elbow needs the error of at least 3 epochs, got {len(errors)}: train longer")
    first, last = errors[0], errors[-1]
    if not last < first:
        raise ValueError(f"the training error does not fall ({first:.3g} to {last:.3g}): change the learning rate")
    line = [first + (last - first) * i / (len(errors) - 1) for i in range(len(errors))]
    below = [on - error for on, error in zip(line, errors)]
    return below.index(max(below)) + 1
