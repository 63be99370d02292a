"""Concept inversion: learn a word of one or several tokens that makes the model draw the concept again."""

from dataclasses import dataclass, replace
from typing import ClassVar

from typing_extensions import Self

from ..methods.base import flag
from .base import Attack, Found, Subject, Suite, Target
from .vectors import draw_with, learn_vectors, places, template_of


@dataclass(frozen=True)
class Inversion(Attack):
    """v* = argmin_v E_(x, ε, t) ‖ε - ε_θ(x_t, t, c("... [v]"))‖² over pictures x of the concept, with θ frozen.

    The prompts are those of the pictures with the concept's name replaced by the new word. Textual inversion (Gal et
    al. 2022, arXiv 2208.01618) of a model that forgot: Pham et al. 2023, "Circumventing Concept Erasure Methods",
    arXiv 2308.01508.
    """

    name: ClassVar[str] = "inversion"
    suite: ClassVar[Suite] = "quick"
    families: ClassVar[tuple[str, ...]] = ("text_to_image",)
    paper: ClassVar[str] = "arXiv 2308.01508"
    limits: ClassVar[dict[str, str]] = {
        "tokens": "[1, inf)",
        "steps": "[1, inf)",
        "rate": "(0, inf)",
        "pictures": "[1, inf)",
        "batch_size": "[1, inf)",
    }

    tokens: int = flag(1, "Number of tokens that are learnt.")
    steps: int = flag(200, "Steps of Adam.")
    rate: float = flag(1.5, "Learning rate of Adam, in standard deviations of the token embeddings.")
    pictures: int = flag(20, "Pictures of the concept that the attacker has, at most.")
    batch_size: int = flag(10, "Pictures in a step.")

    @property
    def metric(self) -> str:
        return super().metric + (f"_{self.tokens}" if self.tokens > 1 else "")

    @property
    def budget(self) -> str:
        word = "1 token" if self.tokens == 1 else f"{self.tokens} tokens"
        return f"{word} learnt in {self.steps} steps on {self.pictures} pictures; the network frozen"

    def quick(self) -> Self:
        return replace(self, steps=min(self.steps, 100))

    def attack(self, subject: Subject, seed: int) -> Found:
        learner = replace(subject, target=first_pictures(subject.target, self.pictures))
        name = subject.target.name
        prompts = [template_of(p, name).format(places(self.tokens)) for p in learner.target.prompts_of_images]
        rest = (self.tokens, self.steps, self.rate, self.batch_size, seed)
        vectors = learn_vectors(learner, prompts, *rest)
        asked = [template_of(str(prompt), name).format(places(self.tokens)) for prompt in subject.asked]
        return Found(subject.read(draw_with(subject, asked, vectors, seed)))


def first_pictures(target: Target, count: int) -> Target:
    """The target with at most `count` of its pictures, evenly spread.

    Raises:
        ValueError: it has none.
    """
    if not len(target.images):
        raise ValueError(f"there is no picture of {target.name!r} to learn from: give some as `images`")
    if len(target.images) <= count:
        return target
    chosen = [i * len(target.images) // count for i in range(count)]
    captions = target.prompts_of_images
    return replace(target, images=target.images[chosen], captions=tuple(captions[i] for i in chosen))
