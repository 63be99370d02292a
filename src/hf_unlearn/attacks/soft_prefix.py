"""Soft prefix: a few vectors before the concept's own prompt, learnt so that the model draws the concept again."""

from dataclasses import dataclass, replace
from typing import ClassVar

from typing_extensions import Self

from ..methods.base import flag
from .base import Attack, Found, Subject, Suite
from .inversion import first_pictures
from .vectors import draw_with, learn_vectors, places


@dataclass(frozen=True)
class SoftPrefix(Attack):
    """v* = argmin_v E_(x, ε, t) ‖ε - ε_θ(x_t, t, c([v_1 ... v_n] prompt))‖² over pictures x of the concept, θ frozen.

    The continuous form of the prefixes of P4D (Chin et al. 2023, arXiv 2309.06135) and UnlearnDiffAtk (Zhang et al.
    2023, arXiv 2310.11868), without their projection to the vocabulary: an upper bound for prefixes of as many tokens.
    """

    name: ClassVar[str] = "soft_prefix"
    suite: ClassVar[Suite] = "quick"
    families: ClassVar[tuple[str, ...]] = ("text_to_image",)
    paper: ClassVar[str] = "arXiv 2309.06135, 2310.11868"
    limits: ClassVar[dict[str, str]] = {
        "tokens": "[1, inf)",
        "steps": "[1, inf)",
        "rate": "(0, inf)",
        "pictures": "[1, inf)",
        "batch_size": "[1, inf)",
    }

    tokens: int = flag(4, "Vectors before the prompt.")
    steps: int = flag(200, "Steps of Adam.")
    rate: float = flag(1.5, "Learning rate of Adam, in standard deviations of the token embeddings.")
    pictures: int = flag(20, "Pictures of the concept that the attacker has, at most.")
    batch_size: int = flag(10, "Pictures in a step.")

    @property
    def budget(self) -> str:
        return (
            f"a prefix of {self.tokens} vectors learnt in {self.steps} steps on {self.pictures} pictures; the network "
            "frozen"
        )

    def quick(self) -> Self:
        return replace(self, steps=min(self.steps, 100))

    def attack(self, subject: Subject, seed: int) -> Found:
        learner = replace(subject, target=first_pictures(subject.target, self.pictures))
        prompts = [places(self.tokens, prompt) for prompt in learner.target.prompts_of_images]
        vectors = learn_vectors(learner, prompts, self.tokens, self.steps, self.rate, self.batch_size, seed)
        asked = [places(self.tokens, str(prompt)) for prompt in subject.asked]
        return Found(subject.read(draw_with(subject, asked, vectors, seed)))
