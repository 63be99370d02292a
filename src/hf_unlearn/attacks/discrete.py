"""Discrete prefix: a few tokens of the vocabulary before the concept's prompt, found by gradients and by trying."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..methods.base import flag
from .base import Attack, Found, Subject
from .pictures import frozen
from .vectors import PromptLoss, Vectors, draw_with, encoders, places, why_no_vectors


@dataclass(frozen=True)
class DiscretePrefix(Attack):
    """argmin over tokens w_1 ... w_n of E_(x, ε, t) ‖ε - ε_θ(x_t, t, c([w_1 ... w_n] prompt))‖².

    Greedy coordinate gradient (GCG, Zou et al. 2023, arXiv 2307.15043): the gradient g_i of the loss at the embedding
    of token i ranks the vocabulary by -<g_i, E_w>; of random single exchanges among the best of each place, all tried
    on the same mini-batch, the best one is kept if it lowers the loss. The loss is that of P4D (arXiv 2309.06135) and
    UnlearnDiffAtk (arXiv 2310.11868).
    """

    name: ClassVar[str] = "discrete_prefix"
    families: ClassVar[tuple[str, ...]] = ("text_to_image",)
    paper: ClassVar[str] = "arXiv 2307.15043, 2310.11868"
    limits: ClassVar[dict[str, str]] = {
        "tokens": "[1, inf)",
        "steps": "[1, inf)",
        "candidates": "[1, inf)",
        "best": "[1, inf)",
        "pictures": "[1, inf)",
        "batch_size": "[1, inf)",
    }

    tokens: int = flag(4, "Tokens before the prompt.")
    steps: int = flag(40, "Exchanges that are looked for.")
    candidates: int = flag(16, "Exchanges that are tried in a step.")
    best: int = flag(64, "Tokens that the gradient ranks highest, among which a place's are drawn.")
    pictures: int = flag(20, "Pictures of the concept that the attacker has, at most.")
    batch_size: int = flag(10, "Pictures in a step.")

    @property
    def budget(self) -> str:
        return (
            f"a prefix of {self.tokens} tokens of the vocabulary, {self.steps} steps of {self.candidates} exchanges "
            f"on {self.pictures} pictures; the network frozen"
        )

    def unfit(self, model: Any) -> str:
        return why_no_vectors(model)

    def attack(self, subject: Subject, seed: int) -> Found:
        learner = replace(subject, target=subject.target.at_most(self.pictures))
        prompts = [places(self.tokens, prompt) for prompt in learner.target.prompts_of_images]
        generator = torch.Generator().manual_seed(seed)
        with frozen(subject.model):
            loss = PromptLoss(learner, prompts, self.batch_size, generator)
            ids = self._search(loss, subject.model, generator)
        asked = [places(self.tokens, str(prompt)) for prompt in subject.asked]
        read = subject.read(draw_with(subject, asked, vectors_of(subject.model, ids), seed))
        words = subject.model.tokenizer.convert_ids_to_tokens(ids.tolist())
        return Found(read, details={"prefix": words})

    def _search(self, loss: PromptLoss, pipeline: Any, generator: torch.Generator) -> Tensor:
        """The tokens (n,) that were found."""
        usable = ordinary_tokens(pipeline)
        ids = usable[torch.randint(len(usable), (self.tokens,), generator=generator)]
        for _ in range(self.steps):
            drawn = loss.draw()
            vectors = [part.requires_grad_() for part in vectors_of(pipeline, ids)]
            value = loss(vectors, drawn)
            gradients = torch.autograd.grad(value, vectors)
            ranked = usable[exchange_scores(pipeline, gradients)[:, usable].topk(min(self.best, len(usable))).indices]
            lowest, found = value.item(), ids
            for _ in range(self.candidates):
                place = int(torch.randint(self.tokens, (), generator=generator))
                tried = ids.clone()
                tried[place] = ranked[place, int(torch.randint(ranked.shape[1], (), generator=generator))]
                with torch.no_grad():
                    now = loss(vectors_of(pipeline, tried), drawn).item()
                if now < lowest:
                    lowest, found = now, tried
            ids = found
        return ids


def vectors_of(pipeline: Any, ids: Tensor) -> Vectors:
    """The embeddings (..., n, D) of tokens (..., n) in each text encoder."""
    tables = [encoder.get_input_embeddings().weight.detach() for _, encoder in encoders(pipeline)]
    return [table[ids.to(table.device)].clone() for table in tables]


def exchange_scores(pipeline: Any, gradients: tuple[Tensor, ...]) -> Tensor:
    """(n, vocabulary) -<g_i, E_w>, summed over the text encoders: large is a promising exchange; on the CPU."""
    tables = [encoder.get_input_embeddings().weight.detach() for _, encoder in encoders(pipeline)]
    return torch.stack([-(g @ table.T).cpu() for g, table in zip(gradients, tables, strict=True)]).sum(0)


def ordinary_tokens(pipeline: Any) -> Tensor:
    """The numbers of all tokens but the special ones."""
    tokenizer = pipeline.tokenizer
    return torch.tensor(sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids)))
