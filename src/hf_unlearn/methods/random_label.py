"""RandomLabel: learn other labels for the forget samples while the retain samples keep theirs."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from .base import Loop, Method


@dataclass
class RandomLabel(Method):
    """L = mean l(retain) + a mean l(forget, y'), y' a random other label, drawn once for each sample.

    Graves et al., Amnesiac machine learning, arXiv 2010.10981. A diffusion model takes another class as y': its
    prediction under the own label is matched to the one under y'.
    """

    name: ClassVar[str] = "random_label"
    paper: ClassVar[str] = "2010.10981"
    forget_weight: float = field(default=1.0, metadata={"help": "a, the weight of the forget term"})

    def __post_init__(self):
        if self.forget_weight <= 0:
            raise ValueError(f"forget_weight must be positive, got {self.forget_weight}")

    def loss(self, loop: Loop, batch: dict[str, Any]) -> Tensor:
        return relabelled(loop, batch, self.forget_weight)


def relabelled(loop: Loop, batch: dict[str, Any], weight: float) -> Tensor:
    """mean l(retain) + weight mean l(forget, anchor)."""
    forget = loop.matching_losses(batch["forget"], to="anchor").mean()
    retain = loop.losses(batch["retain"][0]).mean()
    loop.record("forget_loss", forget.detach())
    loop.record("retain_loss", retain.detach())
    return retain + weight * forget
