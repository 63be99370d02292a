"""RandomLabel: learn other labels for the forget samples while the retain samples keep theirs."""

from dataclasses import dataclass
from typing import ClassVar

from .base import Batch, Losses, Method, Step, flag


@dataclass(frozen=True)
class RandomLabel(Method):
    """L = mean l(retain) + a mean l(forget, y'), y' a random other label, drawn once for each sample.

    Graves et al., Amnesiac machine learning, arXiv 2010.10981. A diffusion model takes another class as y': its
    prediction under the own label is matched to the one under y'.
    """

    name: ClassVar[str] = "random_label"
    paper: ClassVar[str] = "2010.10981"
    forget_weight: float = flag(1.0, "Weight a of the forget term.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.forget_weight <= 0:
            raise ValueError(f"forget_weight must be positive, got {self.forget_weight}")

    def loss(self, step: Step, batch: Batch) -> Losses:
        return relabelled(step, batch, self.forget_weight)


def relabelled(step: Step, batch: Batch, weight: float) -> Losses:
    """mean l(retain) + weight mean l(forget, anchor)."""
    forget = step.losses(batch.forget, target=step.anchor(batch.forget)).mean()
    retain = step.losses(batch.retain[0]).mean()
    return Losses(forget=forget, retain=retain, total=retain + weight * forget)
