"""Gradient ascent on the forget set, the baseline that forgets everything."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .base import Loop, Method


@dataclass
class GradientAscent(Method):
    """Ascent on the forget loss: L = -mean l(forget) (Graves et al., arXiv 2010.10981; Thudi et al., 2109.13398)."""

    name: ClassVar[str] = "gradient_ascent"
    paper: ClassVar[str] = "2109.13398"
    streams: ClassVar[tuple[str, ...]] = ("forget",)

    def loss(self, loop: Loop, batch: dict[str, Any]) -> Tensor:
        losses = loop.losses(batch["forget"])
        loop.record("forget_loss", losses.detach().mean())
        return -losses.mean()
