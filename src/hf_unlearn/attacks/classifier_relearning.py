"""Relearning: how soon a classifier is as good on the forgotten data again as it was."""

from dataclasses import dataclass
from typing import ClassVar

from ..evaluation.classification import accuracy, predictions
from ..evaluation.relearn import relearn
from ..methods.base import flag
from .base import Attack, Found, Subject, Suite
from .classifiers import FAMILIES, data_of
from .pictures import original_of


@dataclass(frozen=True)
class ClassifierRelearning(Attack):
    """Fine-tune on the forget samples until the accuracy on them is the original's again.

    The original needs no step. A retrained model, which learns the samples for the first time, says how many steps
    are enough: fewer are knowledge that was left.
    """

    name: ClassVar[str] = "classifier"
    suite: ClassVar[Suite] = "quick"
    families: ClassVar[tuple[str, ...]] = FAMILIES
    counts_steps: ClassVar[bool] = True
    same_samples: ClassVar[bool] = True
    limits: ClassVar[dict[str, str]] = {
        "learning_rate": "(0, inf)",
        "batch_size": "[1, inf)",
        "max_steps": "[1, inf)",
        "share": "(0, 1]",
    }

    learning_rate: float = flag(1e-4, "Constant learning rate of AdamW.")
    batch_size: int = flag(64, "Forget samples in a step.")
    max_steps: int = flag(50, "Limit of steps.")
    share: float = flag(1.0, "Share of the original's accuracy that is to be reached.")

    @property
    def budget(self) -> str:
        return f"the weights, the forget samples, at most {self.max_steps} steps on all weights"

    def attack(self, subject: Subject, seed: int) -> Found:
        data = data_of(subject.target, "the forget samples")
        known = accuracy(predictions(original_of(subject, "relearning"), data)).number
        goal = self.share * known
        metric, last = relearn(
            subject.model, data, goal, self.learning_rate, self.batch_size, self.max_steps, seed, len(data)
        )
        right = last.logits.argmax(1) == last.labels
        return Found(tuple(right.tolist()), int(metric.number), metric.details["reached"], {"accuracy_to_reach": goal})
