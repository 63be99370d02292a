"""Noise on the weights: what was hidden by an exact arrangement of them comes back when that is shaken."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..methods.base import flag
from .base import Attack, Found, Subject
from .weights import asked_of, changed


@dataclass(frozen=True)
class WeightNoise(Attack):
    """w + a · std(w) · z,   z ~ N(0, I), with the standard deviation of each weight tensor. Nothing is learnt."""

    name: ClassVar[str] = "weight_noise"
    families: ClassVar[tuple[str, ...]] = ("text_to_image",)
    limits: ClassVar[dict[str, str]] = {"size": "[0, inf)"}

    size: float = flag(0.05, "Standard deviation of the noise, in units of that of each weight tensor.")

    @property
    def budget(self) -> str:
        return f"noise of {self.size:g} standard deviations on all weights; nothing is learnt"

    def attack(self, subject: Subject, seed: int) -> Found:
        return asked_of(shaken(subject.model, self.size, seed), subject, seed)


def shaken(pipeline: Any, size: float, seed: int) -> Any:
    """A pipeline with noise on its weights."""
    generator = torch.Generator().manual_seed(seed)

    def shake(part: str, name: str, weight: Tensor) -> Tensor:
        spread = weight.std(correction=0)
        return weight + size * spread * torch.randn(weight.shape, generator=generator).to(weight)

    return changed(pipeline, shake)
