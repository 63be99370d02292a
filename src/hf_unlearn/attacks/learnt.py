"""What the attacks by learnt vectors have in common: budget, loop and reading."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from typing_extensions import Self

from ..methods.base import flag
from .base import Attack, Found, Subject
from .vectors import draw_with, learn_vectors, why_no_vectors


@dataclass(frozen=True)
class LearntVectors(Attack):
    """Learn vectors at places in prompts on pictures of the concept, with the network frozen, then draw with them.

    A subclass says in `prompt` where the places are.
    """

    families: ClassVar[tuple[str, ...]] = ("text_to_image",)
    limits: ClassVar[dict[str, str]] = {
        "tokens": "[1, inf)",
        "steps": "[1, inf)",
        "rate": "(0, inf)",
        "pictures": "[1, inf)",
        "batch_size": "[1, inf)",
    }

    tokens: int = flag(1, "Number of vectors, each in the place of a token.")
    steps: int = flag(200, "Steps of Adam.")
    rate: float = flag(1.5, "Learning rate of Adam, in standard deviations of the token embeddings.")
    pictures: int = flag(20, "Pictures of the concept that the attacker has, at most.")
    batch_size: int = flag(10, "Pictures in a step.")

    @property
    def budget(self) -> str:
        what = "1 vector" if self.tokens == 1 else f"{self.tokens} vectors"
        return f"{what} learnt in {self.steps} steps on {self.pictures} pictures; the network is frozen"

    def unfit(self, model: Any) -> str:
        return why_no_vectors(model)

    def quick(self) -> Self:
        return replace(self, steps=min(self.steps, 50), batch_size=min(self.batch_size, 4))

    def prompt(self, prompt: str, name: str) -> str:
        """A prompt of the concept `name` with places for the vectors."""
        raise NotImplementedError(f"{type(self).__name__} does not say where its vectors stand: define prompt")

    def attack(self, subject: Subject, seed: int) -> Found:
        learner = replace(subject, target=subject.target.at_most(self.pictures))
        name = subject.target.name
        prompts = [self.prompt(prompt, name) for prompt in learner.target.prompts_of_images]
        vectors = learn_vectors(learner, prompts, self.tokens, self.steps, self.rate, self.batch_size, seed)
        asked = [self.prompt(str(prompt), name) for prompt in subject.asked]
        return Found(subject.read(draw_with(subject, asked, vectors, seed)))
