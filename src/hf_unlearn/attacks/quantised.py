"""Quantised weights, simulated: rounding may bring back what a small change of the weights took away."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from ..methods.base import flag
from .base import Attack, Found, Subject
from .weights import asked_of, changed


@dataclass(frozen=True)
class Quantised(Attack):
    """q = s · round(w / s),   s = max |w| / (2^(bits - 1) - 1) for each output channel.

    Round to nearest, symmetric, of all weights that have at least two axes; biases and norms stay. It is simulated:
    the rounded numbers are held in the old precision. Zhang et al. 2024, "Catastrophic Failure of LLM Unlearning via
    Quantization", arXiv 2410.16454.
    """

    name: ClassVar[str] = "quantised"
    families: ClassVar[tuple[str, ...]] = ("text_to_image",)
    paper: ClassVar[str] = "arXiv 2410.16454"

    bits: Literal[8, 4] = flag(4, "Bits of a weight, 8 or 4.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits not in (8, 4):
            raise ValueError(f"bits must be 8 or 4, got {self.bits}")

    @property
    def metric(self) -> str:
        return f"{super().metric}_int{self.bits}"

    @property
    def budget(self) -> str:
        return f"int{self.bits} weights, rounded to nearest, simulated; nothing is learnt"

    def attack(self, subject: Subject, seed: int) -> Found:
        return asked_of(quantised(subject.model, self.bits), subject, seed)


def rounded(weight: Tensor, bits: int) -> Tensor:
    """A weight (out, ...) rounded to 2^bits - 1 levels for each output channel; |error| <= half a level."""
    largest = 2 ** (bits - 1) - 1
    scale = weight.abs().flatten(1).amax(1).div(largest).view(-1, *[1] * (weight.dim() - 1))
    safe = scale.where(scale > 0, 1.0)
    return (weight / safe).round().clamp(-largest, largest) * scale


def quantised(pipeline: Any, bits: int) -> Any:
    """A pipeline with rounded weights."""
    return changed(pipeline, lambda part, name, weight: rounded(weight, bits) if weight.dim() > 1 else weight)
