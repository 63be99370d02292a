"""Vectors in the place of words: learnt by the denoising loss, with the network and the text encoders frozen.

The vectors stand in the input of the text encoders, where the embeddings of tokens stand: a prompt holds the word
`PLACE` once for each, and the rows that the encoder looks up for it are replaced. The rest of the way is the
pipeline's own, so SDXL's two encoders, its pooled embedding and its skipped layers need nothing of their own.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from ..families import FlowSchedule, TextToImage, denoiser_of, encode_prompts
from ..families.latents import Drawing
from .base import Subject
from .pictures import draw, drawing_of, frozen, latents_of_images

PLACE = "x"  # one token of CLIP's vocabulary
Vectors = list[Tensor]  # for each text encoder (n, D)


def encoders(pipeline: Any) -> list[tuple[Any, Any]]:
    """The (tokenizer, text encoder) pairs of a pipeline in which vectors are learnt, one or two CLIPs.

    Raises:
        ValueError: the pipeline reads no words by CLIP.
    """
    names = denoiser_of(pipeline).vectors
    pairs = [(getattr(pipeline, first, None), getattr(pipeline, second, None)) for first, second in names]
    if why_no_vectors(pipeline):
        raise ValueError(why_no_vectors(pipeline))
    return [(tokenizer, encoder) for tokenizer, encoder in pairs if encoder is not None]


def why_no_vectors(pipeline: Any) -> str:
    """Why no vectors can take the place of a pipeline's words; "" where they can."""
    if denoiser_of(pipeline).vectors:
        return ""
    return f"vectors are learnt in CLIP text encoders, by which a {type(pipeline).__name__} reads no words"


def why_no_ddim(pipeline: Any) -> str:
    """Why a pipeline cannot be sampled by DDIM; "" where it can."""
    if not FlowSchedule.fits(pipeline.scheduler):
        return ""
    return f"a {type(pipeline).__name__} of flow matching is not sampled by DDIM"


def places(count: int, prompt: str = "") -> str:
    """`count` places for vectors, before a prompt."""
    return " ".join([*[PLACE] * count, *([prompt] if prompt else [])])


def template_of(prompt: str, name: str) -> str:
    """A prompt with "{}" in the place of the concept's name; "a photo of {}" where it does not hold the name."""
    start = prompt.casefold().find(name.casefold())
    return "a photo of {}" if start < 0 else f"{prompt[:start]}{{}}{prompt[start + len(name) :]}"


@contextmanager
def _placed(tokenizer: Any, encoder: Any, prompts: Sequence[str], vectors: Tensor) -> Iterator[None]:
    """Inside, the encoder reads `vectors` (n, D), or (B, n, D), at the first n places that follow each other."""
    count = vectors.shape[-2]
    options = {"padding": "max_length", "truncation": True, "max_length": tokenizer.model_max_length}
    ids = tokenizer(list(prompts), **options).input_ids
    word = tokenizer(PLACE).input_ids[1:-1]
    wanted = word * count
    found = [next((i for i in range(len(row)) if row[i : i + count] == wanted), -1) for row in ids]
    if len(word) != 1 or min(found) < 0:
        raise ValueError(f"{count} vectors have no place in {prompts[found.index(min(found))]!r}: it is too long")
    rows, columns = torch.arange(len(ids))[:, None], torch.tensor(found)[:, None] + torch.arange(count)

    def replace(module: Any, inputs: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[rows, columns] = vectors.to(output).expand(len(ids), -1, -1)
        return output

    handle = encoder.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def encode_with(pipeline: Any, prompts: Sequence[str], vectors: Vectors) -> tuple[Tensor, Tensor | None]:
    """(embeddings (B, tokens, D), pooled (B, D') for SDXL and SD3 or None) of prompts with places.

    Gradients reach `vectors`.

    Raises:
        ValueError: a prompt has too few places, or is so long that they are cut off.
    """
    with ExitStack() as stack:
        for (tokenizer, encoder), part in zip(encoders(pipeline), vectors, strict=True):
            stack.enter_context(_placed(tokenizer, encoder, prompts, part))
        encoded = denoiser_of(pipeline).encode(pipeline, prompts)
    return encoded.embeds, encoded.pooled


def random_vectors(pipeline: Any, count: int, generator: torch.Generator) -> Vectors:
    """Vectors with the mean and the standard deviation of the token embeddings, by coordinate."""
    made = []
    for _, encoder in encoders(pipeline):
        table = encoder.get_input_embeddings().weight.detach().float()
        noise = torch.randn((count, table.shape[1]), generator=generator).to(table.device)
        made.append(table.mean(0) + table.std(0) * noise)
    return made


def objective_of(pipeline: Any, drawing: Drawing) -> TextToImage:
    """The denoising loss of a pipeline. It marks weights as trained: call it where they are `frozen` or copied."""
    return TextToImage(pipeline, encode_prompts(pipeline, []), resolution=drawing.resolution)


class PromptLoss:
    """The denoising loss of a subject's images under prompts that hold vectors.

    L(v) = mean_i l(x_i, ε_i, t_i, c(prompt_i, v)),   the mean over a mini-batch that is drawn anew in each call

    Args:
        prompts: for each of the target's images the prompt with places that it is learnt under.
    """

    def __init__(self, subject: Subject, prompts: Sequence[str], batch_size: int, generator: torch.Generator):
        self.pipeline, self.generator, self.prompts = subject.model, generator, list(prompts)
        self.objective = objective_of(subject.model, drawing_of(subject))
        self.objective.network.requires_grad_(False)
        self.objective.to(subject.model.device)
        self.latents = latents_of_images(subject.model, subject.target.images)
        self.batch_size = min(batch_size, len(self.latents))

    def draw(self) -> tuple[list[int], dict[str, Tensor]]:
        """A mini-batch: the numbers of its images, none of them twice, and what is noised how."""
        chosen = torch.randperm(len(self.latents), generator=self.generator)[: self.batch_size]
        batch = {"pixel_values": self.latents[chosen]}
        batch |= {k: v for k, v in self.objective.draw(batch, self.generator).items() if k != "drop_labels"}
        return chosen.tolist(), {name: value.to(self.pipeline.device) for name, value in batch.items()}

    def __call__(self, vectors: Vectors, drawn: tuple[list[int], dict[str, Tensor]] | None = None) -> Tensor:
        """The loss of a mini-batch (a scalar), of a new one if none is given."""
        chosen, batch = drawn or self.draw()
        texts = [self.prompts[i] for i in chosen]
        every = list(dict.fromkeys(texts))
        embeds, pooled = encode_with(self.pipeline, every, vectors)
        rows = torch.tensor([every.index(text) for text in texts], device=embeds.device)
        return self.objective.embedded_losses(batch, embeds[rows], None if pooled is None else pooled[rows]).mean()


def learn_vectors(
    subject: Subject,
    prompts: Sequence[str],
    count: int,
    steps: int,
    rate: float,
    batch_size: int,
    seed: int,
) -> Vectors:
    """Learn `count` vectors for each text encoder: Adam on `PromptLoss`, from `random_vectors`.

    Args:
        prompts: one for each image of the target, with `count` places.
        rate: of Adam, in units of the standard deviation of an encoder's token embeddings, which differs by encoder.
    """
    generator = torch.Generator().manual_seed(seed)
    with frozen(subject.model):
        loss = PromptLoss(subject, prompts, batch_size, generator)
        vectors = [v.requires_grad_() for v in random_vectors(subject.model, count, generator)]
        rates = [rate * encoder.get_input_embeddings().weight.std().item() for _, encoder in encoders(subject.model)]
        optimizer = torch.optim.Adam([{"params": [v], "lr": lr} for v, lr in zip(vectors, rates, strict=True)])
        for _ in range(steps):
            value = loss(vectors)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return [v.detach() for v in vectors]


def draw_with(subject: Subject, prompts: Sequence[str], vectors: Vectors, seed: int) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1] of N prompts that hold vectors, by the stock pipeline from embeddings."""
    every = list(dict.fromkeys(prompts))
    with torch.no_grad():
        embeds, pooled = encode_with(subject.model, every, vectors)
    numbers = torch.tensor([every.index(prompt) for prompt in prompts], device=embeds.device)

    def given(rows: slice) -> dict[str, Any]:
        options = {"prompt_embeds": embeds[numbers[rows]]}
        return options if pooled is None else {**options, "pooled_prompt_embeds": pooled[numbers[rows]]}

    return draw(subject.model, drawing_of(subject), seed, len(prompts), given)
