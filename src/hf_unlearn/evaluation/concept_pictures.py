"""Generate images of prompts before and after, from the same noise."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import pt_to_pil
from torch import Tensor

from ..data.images import blur_picture, to_pixels
from ..families import denoiser_of, side_of
from ..families.latents import Drawing
from ..saliency.ranks import NAME
from ..saving.adapters import set_strengths
from .grids import save_grid


def draw_prompts(pipeline: Any, prompts: Sequence[str], drawing: Drawing, per_prompt: int = 4) -> Tensor:
    """Generate images (prompts, per_prompt, 3, H, W) in [-1, 1], with the same seeds for every model."""
    adapter, size = denoiser_of(pipeline), side_of(pipeline, drawing.resolution)
    pictures = []
    for number, prompt in enumerate(prompts):
        seeds = [drawing.seed + 1000 * number + k for k in range(per_prompt)]
        made = pipeline(
            prompt=[prompt] * per_prompt,
            num_inference_steps=drawing.num_inference_steps,
            generator=[torch.Generator().manual_seed(2_000_000 + seed) for seed in seeds],
            height=size,
            width=size,
            output_type="pt",
            **adapter.sampling(pipeline, drawing.guidance_scale, per_prompt),
        ).images
        pictures.append(made.float().cpu() * 2 - 1)
    return torch.stack(pictures)


def strength_pictures(
    pipeline: Any,
    prompts: Sequence[str],
    drawing: Drawing,
    strengths: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5),
) -> dict[str, Tensor]:
    """Run `draw_prompts` at each strength of the pipeline's adapter, one image per prompt.

    Afterwards the strength is 1.
    """
    pictures = {}
    for strength in strengths:
        set_strengths(pipeline, {NAME: strength})
        pictures[f"{strength:g}"] = draw_prompts(pipeline, prompts, drawing, per_prompt=1)
    set_strengths(pipeline, {NAME: 1.0})
    return pictures


def concept_picture(
    pictures: dict[str, Tensor],
    prompts: Sequence[str],
    forgotten: Sequence[bool],
    blurred: Sequence[bool],
    path: str | Path,
    rows: str = "",
) -> None:
    """Write a PNG of `draw_prompts` tensors with a row for each model and a column for each prompt.

    Args:
        blurred: columns that are blurred beyond recognition.
        rows: what the names of the rows are, if not models.
    """
    shown = {}
    for name, cells in pictures.items():
        cells = cells.clone()
        for column in [i for i, hide in enumerate(blurred) if hide]:
            cells[column] = torch.stack([to_pixels(blur_picture(p), None, 3) for p in pt_to_pil(cells[column])])
        shown[name] = cells
    columns = [_wrapped(prompt) for prompt in prompts]
    save_grid(shown, columns, forgotten, path, rows)


def _wrapped(prompt: str, width: int = 12) -> str:
    return "\n".join(textwrap.wrap(prompt, width)[:3])
