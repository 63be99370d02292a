"""Benign relapse: the model is fine-tuned on what stayed, as its users do, and asked again."""

from dataclasses import dataclass
from typing import ClassVar

from ..methods.base import flag
from .base import Attack, Found, Subject
from .fine_tuning import Weights, fine_tune, trained_text
from .weights import asked_of


@dataclass(frozen=True)
class BenignRelapse(Attack):
    """Fine-tune on retained images by AdamW, then ask for the concept, none of whose images was used.

    As "benign fine-tuning" in ResAlign, arXiv 2507.16302, and in arXiv 2410.12777.
    """

    name: ClassVar[str] = "benign_relapse"
    families: ClassVar[tuple[str, ...]] = ("text_to_image",)
    paper: ClassVar[str] = "arXiv 2507.16302"
    limits: ClassVar[dict[str, str]] = {
        "steps": "[1, inf)",
        "rate": "(0, inf)",
        "batch_size": "[1, inf)",
        "rank": "[1, inf)",
    }

    weights: Weights = flag("full", "What is trained: all weights, or a LoRA on all layers.")
    steps: int = flag(100, "Steps of AdamW.")
    rate: float = flag(3e-4, "Learning rate of AdamW.")
    batch_size: int = flag(16, "Images in a step.")
    rank: int = flag(8, "Rank of the LoRA.")

    @property
    def budget(self) -> str:
        return (
            f"{self.steps} steps on retained images, {trained_text(self.weights, self.rank)} trained at {self.rate:g}"
        )

    def attack(self, subject: Subject, seed: int) -> Found:
        data = subject.retained
        if data is None or not len(data.images):
            raise ValueError("benign relapse trains on what stayed: give retained images as `retained`")
        rest = (self.steps, self.rate, self.batch_size, seed, self.weights, self.rank)
        pipeline, _ = fine_tune(subject, data, *rest)
        return asked_of(pipeline, subject, seed)
