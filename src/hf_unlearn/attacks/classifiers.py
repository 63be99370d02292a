"""What the attacks on image classifiers share: a classifier is its own reader, its data are the target's images."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..data.images import ArrayDataset
from .base import Subject, Target

FAMILIES = ("classifier",)


@dataclass(frozen=True)
class Itself:
    """Stands where a classifier is attacked: it reads its images itself, so nobody else does."""

    name: str = "the classifier itself"

    def __call__(self, images: Tensor) -> Tensor:
        raise ValueError("a classifier reads its images itself: attack it with an attack of its family")


def classifier_target(name: str, images: Tensor, labels: Tensor) -> Target:
    """Return the forget samples, or others, of a classifier as a `Target`.

    Args:
        images: (N, C, H, W) as the classifier takes them.
        labels: (N,).
    """
    return Target(name, (), images, Itself(), labels=labels)


def data_of(target: Target | None, what: str) -> ArrayDataset:
    """Return a target's images with their labels. Raises ValueError, which names `what`, where they are not there."""
    if target is None or len(target.images) == 0:
        raise ValueError(f"the attack needs {what}: give them as a classifier_target")
    if target.labels is None or len(target.labels) != len(target.images):
        raise ValueError(f"{what} need a label for each image: give a classifier_target")
    return ArrayDataset(target.images, target.labels)


def references_of(subject: Subject, count: int, why: str) -> tuple[Any, ...]:
    """Return the first `count` models that never saw the target.

    Raises:
        ValueError: there are fewer, or one of them is the model under attack, which would be compared with itself.
    """
    if len(subject.references) < count:
        raise ValueError(
            f"{why} needs {count} models trained without the target, and there are {len(subject.references)}: give "
            "them as `references`"
        )
    if any(reference is subject.model for reference in subject.references):
        raise ValueError(
            "the model under attack is one of the references: as a control give a retrained model besides"
        )
    return subject.references[:count]
