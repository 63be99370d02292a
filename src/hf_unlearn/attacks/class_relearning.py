"""Relearning: how many steps of fine-tuning on a few pictures bring a forgotten class back."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..methods.base import flag
from .base import Attack, Found, Subject
from .classes import FAMILIES, Batches, objective_for_classes, one_class, pictures, sampled, working_copy


@dataclass(frozen=True)
class ClassRelearning(Attack):
    """Fine-tune all weights with the training loss on k pictures until the reader finds the class in enough samples.

    The samples are drawn every few steps from the same noise. A model that never learnt the class needs some steps
    too: only fewer than those are knowledge that was left.
    """

    name: ClassVar[str] = "class"
    families: ClassVar[tuple[str, ...]] = FAMILIES
    counts_steps: ClassVar[bool] = True
    limits: ClassVar[dict[str, str]] = {
        "pictures": "[1, inf)",
        "learning_rate": "(0, inf)",
        "batch_size": "[1, inf)",
        "every": "[1, inf)",
        "max_steps": "[1, inf)",
        "share": "(0, 1]",
    }

    pictures: int = flag(5, "Pictures of the class, k.")
    learning_rate: float = flag(1e-4, "Learning rate of AdamW, without weight decay.")
    batch_size: int = flag(32, "Pictures, each with a timestep and noise of its own, in a step.")
    every: int = flag(5, "Steps between two readings.")
    max_steps: int = flag(200, "Limit of steps.")
    share: float = flag(0.5, "Share of the samples that must show the class.")

    @property
    def budget(self) -> str:
        return f"the weights, {self.pictures} pictures, at most {self.max_steps} steps on all weights"

    def attack(self, subject: Subject, seed: int) -> Found:
        objective = working_copy(subject)
        label = one_class(subject) if objective_for_classes(objective.pipeline) else None
        images = pictures(objective, subject.target.images, self.pictures)
        batches = Batches(objective, images, label, self.batch_size, seed)
        objective.network.requires_grad_(True)
        optimizer = torch.optim.AdamW(objective.network.parameters(), lr=self.learning_rate, weight_decay=0.0)
        steps, course = 0, {}
        while True:
            with torch.no_grad():
                found = Found(subject.read(sampled(objective.pipeline, subject, seed)))
            course[str(steps)] = found.share
            reached = found.share >= self.share
            if reached or steps >= self.max_steps:
                return Found(found.recovered, steps, reached, {"shares": course})
            with torch.enable_grad():
                for _ in range(min(self.every, self.max_steps - steps)):
                    optimizer.zero_grad()
                    batches.loss().backward()
                    optimizer.step()
                    steps += 1
