"""NegGrad+: descent on retain and ascent on forget in one step."""

from dataclasses import dataclass
from typing import ClassVar

from ..common.losses import masked_mean
from ..data.pairs import mixed_batch
from .base import Batch, Losses, Method, Step, flag


@dataclass(frozen=True)
class NegGradPlus(Method):
    """L = mean l(retain) - a mean l(forget), one mixed batch (Kurmanji et al., arXiv 2302.09880, section 4)."""

    name: ClassVar[str] = "neg_grad_plus"
    paper: ClassVar[str] = "2302.09880"
    forget_weight: float = flag(0.1, "Weight a of the ascent term.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.forget_weight < 0:
            raise ValueError(f"forget_weight must not be negative, got {self.forget_weight}")

    def loss(self, step: Step, batch: Batch) -> Losses:
        mixed, is_forget = mixed_batch(batch.forget, batch.retain[0])
        losses = step.losses(mixed)
        forget, retain = masked_mean(losses, is_forget), masked_mean(losses, ~is_forget)
        return Losses(forget=forget, retain=retain, total=retain - self.forget_weight * forget)
