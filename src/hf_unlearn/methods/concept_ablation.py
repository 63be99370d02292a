"""Concept ablation: the concept's prompt draws what its anchor's does."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from .base import Loop, Method


@dataclass
class ConceptAblation(Method):
    """L = mean ‖ε_θ(x_t, c) - sg ε_θ(x_t, c*)‖² + a mean l(retain),   c* the anchor of c

    Kumari et al., ICCV 2023, arXiv 2303.13516, model-based form: both predictions are the present model's, the
    second without gradient. The images are the anchor's where the data is synthesised, as in the paper.
    """

    name: ClassVar[str] = "concept_ablation"
    paper: ClassVar[str] = "2303.13516"
    family: ClassVar[str] = "diffusion"
    forget_images: ClassVar[str] = "anchor"
    retain_weight: float = field(default=1.0, metadata={"help": "a, weight of the retain data's own loss"})

    def __post_init__(self):
        if self.retain_weight < 0:
            raise ValueError(f"retain_weight must not be negative, got {self.retain_weight}")

    def loss(self, loop: Loop, batch: dict[str, Any]) -> Tensor:
        forget = loop.matching_losses(batch["forget"], to="anchor").mean()
        retain = loop.losses(batch["retain"][0]).mean()
        loop.record("forget_loss", forget.detach())
        loop.record("retain_loss", retain.detach())
        return forget + self.retain_weight * retain
