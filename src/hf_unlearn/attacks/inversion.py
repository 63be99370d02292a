"""Concept inversion: learn a word of one or several tokens that makes the model draw the concept again."""

from dataclasses import dataclass
from typing import ClassVar

from .base import Suite
from .learnt import LearntVectors
from .vectors import places, template_of


@dataclass(frozen=True)
class Inversion(LearntVectors):
    """v* = argmin_v E_(x, ε, t) ‖ε - ε_θ(x_t, t, c("... [v]"))‖² over pictures x of the concept, with θ frozen.

    The prompts are those of the pictures with the concept's name replaced by the new word. Textual inversion (Gal et
    al. 2022, arXiv 2208.01618) of a model that forgot: Pham et al. 2023, "Circumventing Concept Erasure Methods",
    arXiv 2308.01508.
    """

    name: ClassVar[str] = "inversion"
    suite: ClassVar[Suite] = "full"  # in few steps it finds hardly anything, on the original either
    paper: ClassVar[str] = "arXiv 2308.01508"

    @property
    def metric(self) -> str:
        return super().metric + (f"_{self.tokens}" if self.tokens > 1 else "")

    def prompt(self, prompt: str, name: str) -> str:
        return template_of(prompt, name).format(places(self.tokens))
