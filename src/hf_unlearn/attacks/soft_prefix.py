"""Soft prefix: a few vectors before the concept's own prompt, learnt so that the model draws the concept again."""

from dataclasses import dataclass
from typing import ClassVar

from ..methods.base import flag
from .base import Suite
from .learnt import LearntVectors
from .vectors import places


@dataclass(frozen=True)
class SoftPrefix(LearntVectors):
    """v* = argmin_v E_(x, ε, t) ‖ε - ε_θ(x_t, t, c([v_1 ... v_n] prompt))‖² over pictures x of the concept, θ frozen.

    The continuous form of the prefixes of P4D (Chin et al. 2023, arXiv 2309.06135) and UnlearnDiffAtk (Zhang et al.
    2023, arXiv 2310.11868), without their projection to the vocabulary: an upper bound for prefixes of as many tokens.
    """

    name: ClassVar[str] = "soft_prefix"
    suite: ClassVar[Suite] = "quick"
    paper: ClassVar[str] = "arXiv 2309.06135, 2310.11868"

    tokens: int = flag(4, "Vectors before the prompt.")

    def prompt(self, prompt: str, name: str) -> str:
        return places(self.tokens, prompt)
