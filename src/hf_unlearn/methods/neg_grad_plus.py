"""NegGrad+: descent on retain and ascent on forget in one step."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from ..common.losses import masked_mean
from ..data.pairs import mixed_batch
from .base import Loop, Method


@dataclass
class NegGradPlus(Method):
    """L = mean l(retain) - a mean l(forget), one mixed batch (Kurmanji et al., arXiv 2302.09880, section 4)."""

    name: ClassVar[str] = "neg_grad_plus"
    paper: ClassVar[str] = "2302.09880"
    forget_weight: float = field(default=0.1, metadata={"help": "a, the weight of the ascent term"})

    def __post_init__(self):
        if self.forget_weight < 0:
            raise ValueError(f"forget_weight must not be negative, got {self.forget_weight}")

    def loss(self, loop: Loop, batch: dict[str, Any]) -> Tensor:
        mixed, is_forget = mixed_batch(batch["forget"], batch["retain"][0])
        losses = loop.losses(mixed)
        forget, retain = masked_mean(losses, is_forget), masked_mean(losses, ~is_forget)
        loop.record("forget_loss", forget.detach())
        loop.record("retain_loss", retain.detach())
        return retain - self.forget_weight * forget
