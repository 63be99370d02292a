"""Concept ablation: the concept's prompt draws what its anchor's does."""

from dataclasses import dataclass
from typing import ClassVar

from .base import Batch, Losses, Method, Step, flag


@dataclass(frozen=True)
class ConceptAblation(Method):
    """L = mean ‖ε_θ(x_t, c) - sg ε_θ(x_t, c*)‖² + a mean l(retain),   c* the anchor of c

    Kumari et al., ICCV 2023, arXiv 2303.13516, model-based form: both predictions are the present model's, the
    second without gradient. The images are the anchor's where the data is synthesised, as in the paper.
    """

    name: ClassVar[str] = "concept_ablation"
    paper: ClassVar[str] = "2303.13516"
    family: ClassVar[str] = "diffusion"
    forget_images: ClassVar[str] = "anchor"
    retain_weight: float = flag(1.0, "Weight a of the retain data's own loss.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retain_weight < 0:
            raise ValueError(f"retain_weight must not be negative, got {self.retain_weight}")

    def loss(self, step: Step, batch: Batch) -> Losses:
        target = step.predict(batch.forget, labels=step.anchor_labels(batch.forget))
        forget = step.losses(batch.forget, target=target).mean()
        retain = step.losses(batch.retain[0]).mean()
        return Losses(forget=forget, retain=retain, total=forget + self.retain_weight * retain)
