"""Pictures of prompts before and after, from the same noise."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import pt_to_pil
from torch import Tensor

from ..images import blur_picture, to_pixels
from ..latents import Drawing
from .report import save_grid


def draw_prompts(pipeline: Any, prompts: Sequence[str], drawing: Drawing, per_prompt: int = 4) -> Tensor:
    """(prompts, per_prompt, 3, H, W) in [-1, 1]; the same seeds for every model."""
    size = drawing.resolution or pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    pictures = []
    for number, prompt in enumerate(prompts):
        seeds = [drawing.seed + 1000 * number + k for k in range(per_prompt)]
        made = pipeline(
            [prompt] * per_prompt,
            num_inference_steps=drawing.num_inference_steps,
            guidance_scale=drawing.guidance_scale,
            generator=[torch.Generator().manual_seed(2_000_000 + seed) for seed in seeds],
            height=size,
            width=size,
            output_type="pt",
        ).images
        pictures.append(made.float().cpu() * 2 - 1)
    return torch.stack(pictures)


def concept_picture(
    pictures: dict[str, Tensor],
    prompts: Sequence[str],
    forgotten: Sequence[bool],
    blurred: Sequence[bool],
    path: str | Path,
) -> None:
    """PNG of `draw_prompts` tensors, a row a model, a column a prompt; blurred columns cannot be made out."""
    shown = {}
    for name, cells in pictures.items():
        cells = cells.clone()
        for column in [i for i, hide in enumerate(blurred) if hide]:
            cells[column] = torch.stack([to_pixels(blur_picture(p), None, 3) for p in pt_to_pil(cells[column])])
        shown[name] = cells
    columns = [_wrapped(prompt) for prompt in prompts]
    save_grid(shown, columns, forgotten, path)


def _wrapped(prompt: str, width: int = 12) -> str:
    return "\n".join(textwrap.wrap(prompt, width)[:3])
