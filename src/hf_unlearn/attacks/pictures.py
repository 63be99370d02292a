"""Draw with a text-to-image pipeline under attack: by the stock sampler, from seeds of its own."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..common.weights import networks_of
from ..evaluation.prompt_files import safety_checking
from ..families import side_of
from ..families.latents import Drawing, posterior_mean
from ..families.text_to_image.pipelines import sampled_as
from .base import Subject

FIRST_SEED = 7_000_000  # far from the seeds of training images and of evaluations


def draw(
    pipeline: Any, drawing: Drawing, seed: int, count: int, given: Callable[[slice], dict[str, Any]], first: int = 0
) -> Tensor:
    """Images (count, 3, H, W) in [-1, 1] on the CPU, each from a generator of its own, so that batches change nothing.

    The pipeline's safety checker is off: what it blacks out would be read as "not there".

    Args:
        given: the arguments of the pipeline's call for a slice of the images; they win over those of `drawing`, and
            None takes one away.
        first: number of the first image, for parts of a larger set.
    """
    adapter, size = sampled_as(pipeline), side_of(pipeline, drawing.resolution)
    pipeline.set_progress_bar_config(disable=True)
    images = []
    with safety_checking(pipeline, keep=False):
        for start in range(0, count, drawing.batch_size):
            rows = slice(start, min(start + drawing.batch_size, count))
            numbers = range(rows.start, rows.stop)
            options = {
                "num_inference_steps": drawing.num_inference_steps,
                "height": size,
                "width": size,
                "generator": [torch.Generator().manual_seed(_seed(seed, first + i)) for i in numbers],
                "output_type": "pt",
                **adapter.sampling(pipeline, drawing.guidance_scale, len(numbers)),
            }
            options |= given(rows)
            made = pipeline(**{name: value for name, value in options.items() if value is not None}).images
            images.append(made.float().cpu() * 2 - 1)
    return torch.cat(images)


def _seed(seed: int, number: int) -> int:
    return FIRST_SEED + 10_000 * seed + number


def ask(pipeline: Any, prompts: Sequence[str], drawing: Drawing, seed: int, first: int = 0, **options: Any) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1] of N prompts; `options` are further arguments of the pipeline's call."""

    def given(rows: slice) -> dict[str, Any]:
        return {"prompt": list(prompts[rows]), **options}

    return draw(pipeline, drawing, seed, len(prompts), given, first)


def drawing_of(subject: Subject) -> Drawing:
    """How the subject's model draws. Raises ValueError where that is not said."""
    if not isinstance(subject.sampling, Drawing):
        raise ValueError("a text-to-image model is drawn from as a Drawing says: give one as `sampling`")
    return subject.sampling


def shallow(pipeline: Any, **parts: Any) -> Any:
    """A pipeline with the same parts, but for those given; the first one keeps its own."""
    other = copy.copy(pipeline)
    for name, part in parts.items():
        setattr(other, name, part)
    return other


def original_of(subject: Subject, why: str) -> Any:
    """The model before unlearning. Raises ValueError if it is not there."""
    if subject.original is None:
        raise ValueError(f"{why} needs the original: give the model before unlearning as `original`")
    return subject.original


@torch.no_grad()
def latents_of_images(pipeline: Any, images: Tensor, batch_size: int = 16) -> Tensor:
    """Latents (N, C, h, w) of images (N, 3, H, W) in [-1, 1], on the CPU."""
    vae = pipeline.vae
    parts = [posterior_mean(vae, part.to(vae.device, vae.dtype)) for part in images.split(batch_size)]
    return torch.cat(parts).float().cpu()


@contextmanager
def frozen(pipeline: Any) -> Iterator[None]:
    """No weight of the pipeline takes a gradient inside, and all parts are in eval mode; afterwards as before."""
    parts = list(networks_of(pipeline).values())
    wanted = [(p, p.requires_grad) for part in parts for p in part.parameters()]
    training = [(module, module.training) for part in parts for module in part.modules()]
    for part in parts:
        part.requires_grad_(False).eval()
    try:
        yield
    finally:
        for parameter, wants in wanted:
            parameter.requires_grad_(wants)
        for module, mode in training:
            module.training = mode
