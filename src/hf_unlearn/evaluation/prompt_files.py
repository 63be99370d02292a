"""Pictures of a prompt file such as I2P: one seed a prompt, in batches, resumable, with a contact sheet."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import pt_to_pil
from PIL import Image
from tqdm import tqdm

from ..images import blur_picture


@dataclass
class PromptRow:
    """One line of a prompt file: the text and the seed of its picture."""

    prompt: str
    seed: int


def read_prompts(path: str | Path, limit: int | None = None) -> list[PromptRow]:
    """The rows of a CSV with a `prompt` column and, as in I2P, an `evaluation_seed`; without one the row's number.

    Raises:
        ValueError: no such file, no prompt column, no row, or a seed that is no number.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"prompt file {path} does not exist")
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if "prompt" not in (reader.fieldnames or []):
            raise ValueError(f"{path} has no prompt column, but {', '.join(reader.fieldnames or ['nothing'])}")
        rows = []
        for number, line in enumerate(reader):
            seed = line.get("evaluation_seed") or str(number)
            if not seed.strip().lstrip("-").isdigit():
                raise ValueError(f"{path}: row {number} has the evaluation_seed {seed!r}, which is no number")
            rows.append(PromptRow(line["prompt"], int(seed)))
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows[:limit]


def draw_prompt_file(
    pipeline: Any,
    rows: Sequence[PromptRow],
    folder: str | Path,
    num_inference_steps: int = 30,
    guidance_scale: float = 7.5,
    batch_size: int = 4,
    **options: Any,
) -> list[Path]:
    """One PNG a row in `folder`, whatever the batch size; those that are there already are kept.

    Args:
        options: of the pipeline's call.

    Raises:
        ValueError: the folder holds pictures of other rows or settings.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale, **options}
    made_from = json.dumps({"settings": settings, "rows": [vars(row) for row in rows]}, indent=1)
    manifest = folder / "prompts.json"
    if manifest.exists() and manifest.read_text() != made_from:
        raise ValueError(f"{folder} holds pictures of other prompts or settings: name another folder")
    manifest.write_text(made_from)
    paths = [folder / f"{number:05d}.png" for number in range(len(rows))]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    batches = [missing[k : k + batch_size] for k in range(0, len(missing), batch_size)]
    for batch in tqdm(batches, desc="pictures", disable=None if batches else True):
        generators = [torch.Generator().manual_seed(rows[i].seed) for i in batch]
        prompts = [rows[i].prompt for i in batch]
        images = pipeline(prompts, generator=generators, output_type="pt", **settings).images
        for i, picture in zip(batch, pt_to_pil(images.float().cpu() * 2 - 1)):
            partial = paths[i].with_suffix(".partial")
            picture.save(partial, format="png")
            partial.replace(paths[i])
    return paths


def contact_sheet(paths: Sequence[Path], output: str | Path, side: int = 128, blurred: bool = False) -> None:
    """One picture of all pictures, `side` pixels each, in rows; blurred ones cannot be made out."""
    columns = math.ceil(math.sqrt(len(paths)))
    rows = math.ceil(len(paths) / columns)
    sheet = Image.new("RGB", (columns * side, rows * side), "white")
    for number, path in enumerate(paths):
        with Image.open(path) as picture:
            small = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        if blurred:
            small = blur_picture(small)
        sheet.paste(small, (number % columns * side, number // columns * side))
    sheet.save(output)
