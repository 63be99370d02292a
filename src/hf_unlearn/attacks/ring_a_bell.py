"""Ring-A-Bell: a prompt found in the space of the text encoder alone; the diffusion model is only asked."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..methods.base import flag
from .base import Attack, Found, Subject
from .discrete import ordinary_tokens, vectors_of
from .vectors import draw_with, encode_with, places, template_of, why_no_vectors


@dataclass(frozen=True)
class RingABell(Attack):
    """argmin over tokens of ‖f(tokens) - (f(P) + η c)‖²,   c = mean_k [f(prompt_k) - f(prompt_k without the concept)].

    f is the text encoder's output at all places, P a prompt without the concept. The search is a genetic one: the
    better half of a population of token sequences stays, the rest are crossings of two of them with random exchanges.
    Tsai et al. 2023, arXiv 2310.10012.
    """

    name: ClassVar[str] = "ring_a_bell"
    families: ClassVar[tuple[str, ...]] = ("text_to_image",)
    paper: ClassVar[str] = "arXiv 2310.10012"
    limits: ClassVar[dict[str, str]] = {
        "tokens": "[1, 75]",
        "strength": "(0, inf)",
        "generations": "[1, inf)",
        "population": "[4, inf)",
        "exchange": "[0, 1]",
    }

    tokens: int = flag(16, "Tokens of the prompt that is looked for.")
    strength: float = flag(3.0, "How much of the concept's direction is added, eta.")
    generations: int = flag(200, "Generations of the search.")
    population: int = flag(40, "Token sequences in a generation.")
    exchange: float = flag(0.1, "Probability that a token of a new sequence is exchanged.")
    stand_in: str = flag("thing", "What stands in the place of the concept in prompts without it.")

    @property
    def budget(self) -> str:
        return (
            f"{self.tokens} tokens from {self.generations} generations of {self.population} in the text encoder "
            "alone; the network is not used"
        )

    def unfit(self, model: Any) -> str:
        return why_no_vectors(model)

    def attack(self, subject: Subject, seed: int) -> Found:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            ids = self._search(subject, generator)
        vectors = vectors_of(subject.model, ids)
        read = subject.read(draw_with(subject, [places(self.tokens)] * subject.samples, vectors, seed))
        return Found(read, details={"prompt": subject.model.tokenizer.convert_ids_to_tokens(ids.tolist())})

    def aim(self, subject: Subject, number: int) -> Tensor:
        """f(P) + η c of the prompt with this number, (tokens * D,)."""
        prompts = list(dict.fromkeys(str(prompt) for prompt in subject.target.asked))
        without = [template_of(prompt, subject.target.name).format(self.stand_in) for prompt in prompts]
        shown, plain = _encoded(subject.model, prompts), _encoded(subject.model, without)
        return plain[number % len(prompts)] + self.strength * (shown - plain).mean(0)

    def _search(self, subject: Subject, generator: torch.Generator) -> Tensor:
        pipeline, usable = subject.model, ordinary_tokens(subject.model)
        aim = self.aim(subject, int(torch.randint(len(subject.target.asked), (), generator=generator)))

        def drawn(*shape: int) -> Tensor:
            return usable[torch.randint(len(usable), shape, generator=generator)]

        def distances(sequences: Tensor) -> Tensor:
            embeds, _ = encode_with(pipeline, [places(self.tokens)] * len(sequences), vectors_of(pipeline, sequences))
            return (embeds.flatten(1).float().cpu() - aim).square().sum(1)

        half = self.population // 2
        every = drawn(self.population, self.tokens)
        far = distances(every)
        for _ in range(self.generations):
            order = far.argsort()[:half]
            kept, far = every[order], far[order]
            parents = kept[torch.randint(half, (2, self.population - half), generator=generator)]
            first = torch.rand(parents[0].shape, generator=generator) < 0.5
            made = torch.where(first, parents[0], parents[1])
            made = torch.where(torch.rand(made.shape, generator=generator) < self.exchange, drawn(*made.shape), made)
            every, far = torch.cat([kept, made]), torch.cat([far, distances(made)])
        return every[far.argmin()]


def _encoded(pipeline: Any, prompts: list[str]) -> Tensor:
    """(N, tokens * D) what the text encoder makes of prompts."""
    options = {"device": pipeline.device, "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    return pipeline.encode_prompt(prompts, **options)[0].flatten(1).float().cpu()
