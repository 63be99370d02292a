"""What a model draws when it is asked for nothing in particular."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from .base import Attack, Found, Subject, Suite
from .classes import FAMILIES, objective_for_classes, sampled, working_copy
from .readers import ClassifierReader


@dataclass(frozen=True)
class ClassNull(Attack):
    """Sample the null class, or a model without classes as it is, and count how often the target appears.

    The original draws the forgotten class as often as it was trained on it, and so must be read beside it. Where the
    reader tells classes apart (`ClassifierReader`), details hold the histogram: for each class the share of the images
    that are read as it.
    """

    name: ClassVar[str] = "class_null"
    suite: ClassVar[Suite] = "quick"
    families: ClassVar[tuple[str, ...]] = FAMILIES

    @property
    def budget(self) -> str:
        return "no training: samples of the null class, or of a model without classes"

    def attack(self, subject: Subject, seed: int) -> Found:
        objective = working_copy(subject)
        labels = None
        if objective_for_classes(objective.pipeline):
            if objective.null_class is None:
                raise ValueError(
                    "the model has classes and no null class, so it always draws one: choose another attack"
                )
            labels = [objective.null_class]
        with torch.no_grad():
            images = sampled(objective.pipeline, subject, seed, labels, guidance_scale=1.0)
        details = {}
        if isinstance(subject.target.reader, ClassifierReader):
            read = subject.target.reader.which(images)
            details["histogram"] = {str(c): (read == c).double().mean().item() for c in sorted(set(read.tolist()))}
        return Found(subject.read(images), details=details)
