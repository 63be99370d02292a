"""Generate images of prompts before and after, from the same noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import pt_to_pil
from torch import Tensor

from ..common.bars import bar
from ..data.images import blur_picture, to_pixels
from ..families import denoiser_of, side_of
from ..families.concepts import Concept, normal
from ..families.latents import Drawing
from ..saliency.ranks import NAME
from ..saving.adapters import set_strengths
from .grids import save_grid

FORGET_COLUMNS, RETAIN_COLUMNS = 3, 3  # of the picture; every concept has one at least


@dataclass(frozen=True)
class Column:
    """A prompt of the picture.

    note: "forget", "anchor" or "" for one that stays. noise: number of the column whose noise it starts from.
    """

    prompt: str
    note: str
    noise: int
    unsafe: bool = False


def picture_columns(concepts: Sequence[Concept], retain_prompts: Sequence[str], quick: bool = False) -> list[Column]:
    """The prompts to forget that fit, their anchors from the same noise, and some that stay.

    Args:
        quick: one prompt of each concept, and two that stay.
    """
    turns = [(c, k) for k in range(max(len(c.prompts) for c in concepts)) for c in concepts if k < len(c.prompts)]
    asked = turns[: len(concepts) if quick else max(len(concepts), FORGET_COLUMNS)]
    columns = [Column(c.prompts[k], "forget", n, c.unsafe) for n, (c, k) in enumerate(asked)]
    seen = {normal(column.prompt) for column in columns}
    anchors = [(c.anchors[k], n) for n, (c, k) in enumerate(asked) if c.anchors[k].strip()]
    stays = [(prompt, None) for prompt in retain_prompts[: 2 if quick else RETAIN_COLUMNS]]
    for prompt, noise in [*anchors, *stays]:
        if normal(prompt) not in seen:
            seen.add(normal(prompt))
            note = "" if noise is None else "anchor"
            columns.append(Column(prompt, note, len(columns) if noise is None else noise))
    return columns


def draw_prompts(
    pipeline: Any, prompts: Sequence[str], drawing: Drawing, per_prompt: int = 4, noise: Sequence[int] | None = None
) -> Tensor:
    """Generate images (prompts, per_prompt, 3, H, W) in [-1, 1], with the same seeds for every model.

    Args:
        noise: a number for each prompt; those with the same number start from the same noise.
    """
    adapter, size = denoiser_of(pipeline), side_of(pipeline, drawing.resolution)
    pictures = []
    numbers = range(len(prompts)) if noise is None else noise
    for number, prompt in bar(list(zip(numbers, prompts)), "pictures to show"):
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


def draw_columns(pipeline: Any, columns: Sequence[Column], drawing: Drawing, per_prompt: int = 4) -> Tensor:
    """Run `draw_prompts` on the columns of a picture."""
    prompts, noise = [column.prompt for column in columns], [column.noise for column in columns]
    return draw_prompts(pipeline, prompts, drawing, per_prompt, noise)


def strength_pictures(
    pipeline: Any,
    columns: Sequence[Column],
    drawing: Drawing,
    strengths: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5),
) -> dict[str, Tensor]:
    """Run `draw_prompts` at each strength of the pipeline's adapter, one image per prompt.

    Afterwards the strength is 1.
    """
    pictures = {}
    for strength in strengths:
        set_strengths(pipeline, {NAME: strength})
        pictures[f"{strength:g}"] = draw_columns(pipeline, columns, drawing, per_prompt=1)
    set_strengths(pipeline, {NAME: 1.0})
    return pictures


def concept_picture(pictures: dict[str, Tensor], columns: Sequence[Column], path: str | Path, rows: str = "") -> None:
    """Write a PNG of `draw_columns` tensors with a row for each model and a column for each prompt.

    Columns of unsafe concepts are blurred beyond recognition.

    Args:
        rows: what the names of the rows are, if not models.
    """
    shown = {}
    for name, cells in pictures.items():
        cells = cells.clone()
        for number in [i for i, column in enumerate(columns) if column.unsafe]:
            cells[number] = torch.stack([to_pixels(blur_picture(p), None, 3) for p in pt_to_pil(cells[number])])
        shown[name] = cells
    notes = [column.note for column in columns]
    save_grid(shown, [column.prompt for column in columns], [note == "forget" for note in notes], path, rows, notes)
