"""BoundaryShrink: give each forget sample to the class next to it."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .base import Loop, Method


@dataclass
class BoundaryShrink(Method):
    """L = mean l(forget, y'), y' the class that the original reads x + ε sign(∂l/∂x) as, its own excluded.

    Chen et al., Boundary unlearning, CVPR 2023, arXiv 2303.11570. Takes no retain data. Classifiers only; ε is the
    objective's `epsilon`. A frozen copy of the weights in memory.
    """

    name: ClassVar[str] = "boundary_shrink"
    paper: ClassVar[str] = "2303.11570"
    streams: ClassVar[tuple[str, ...]] = ("forget",)
    needs_original: ClassVar[bool] = True
    family: ClassVar[str] = "classifier"

    def loss(self, loop: Loop, batch: dict[str, Any]) -> Tensor:
        forget = loop.matching_losses(batch["forget"], to="boundary").mean()
        loop.record("forget_loss", forget.detach())
        return forget
