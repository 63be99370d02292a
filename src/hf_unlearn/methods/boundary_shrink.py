"""BoundaryShrink: give each forget sample to the class next to it."""

import math
from dataclasses import dataclass
from typing import ClassVar

from .base import Batch, Losses, Method, Step, flag


@dataclass(frozen=True)
class BoundaryShrink(Method):
    """L = mean l(forget, y'), y' the class that the original reads x + ε sign(∂l/∂x) as, its own excluded.

    Chen et al., Boundary unlearning, CVPR 2023, arXiv 2303.11570. Takes no retain data. Classifiers only. A frozen
    copy of the weights in memory.
    """

    name: ClassVar[str] = "boundary_shrink"
    paper: ClassVar[str] = "2303.11570"
    streams: ClassVar[tuple[str, ...]] = ("forget",)
    needs_original: ClassVar[bool] = True
    family: ClassVar[str] = "classifier"
    epsilon: float = flag(0.1, "Step of the signed gradient that crosses the boundary, in units of pixel_values.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.epsilon > 0:
            raise ValueError(f"epsilon must be positive, got {self.epsilon}")

    def loss(self, step: Step, batch: Batch) -> Losses:
        forget = batch.forget
        crossed = forget["pixel_values"] + self.epsilon * step.original_gradient(forget).sign()
        logits = step.original({**forget, "pixel_values": crossed})
        nearest = logits.scatter(1, forget["labels"][:, None], -math.inf).argmax(1)
        return Losses(forget=step.losses(forget, target=nearest).mean())
