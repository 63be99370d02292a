"""Gradient ascent on the forget set, the baseline that forgets everything."""

from dataclasses import dataclass
from typing import ClassVar

from .base import Batch, Losses, Method, Step


@dataclass(frozen=True)
class GradientAscent(Method):
    """Ascent on the forget loss: L = -mean l(forget) (Graves et al., arXiv 2010.10981; Thudi et al., 2109.13398)."""

    name: ClassVar[str] = "gradient_ascent"
    paper: ClassVar[str] = "2109.13398"
    streams: ClassVar[tuple[str, ...]] = ("forget",)

    def loss(self, step: Step, batch: Batch) -> Losses:
        forget = step.losses(batch.forget).mean()
        return Losses(forget=forget, total=-forget)
