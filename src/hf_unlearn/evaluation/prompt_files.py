"""Generate the images of a prompt file such as I2P: one seed for each prompt, in batches, resumable."""

import csv
import io
import json
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging, pt_to_pil
from PIL import Image, ImageDraw

from ..common.bars import bar
from ..common.files import atomic, write_text
from ..data.images import blur_picture
from ..families import denoiser_of
from .grids import FORGOTTEN, TEXT, label_font, wrap


@dataclass
class PromptRow:
    """One line of a prompt file: the text and the seed of its picture."""

    prompt: str
    seed: int


def read_prompts(path: str | Path, limit: int | None = None) -> list[PromptRow]:
    """Read a CSV file with a `prompt` column and, as in I2P, an `evaluation_seed`, by default the row's number.

    A .txt file has one prompt on each line.

    Raises:
        ValueError: the file does not exist, has no prompt column or no row, or a seed is no number.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"prompt file {path} does not exist")
    try:
        text = path.read_text(encoding="utf-8")
        rows = _lines(text) if path.suffix == ".txt" else _table(text)
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be used: {error}") from error
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows[:limit]


def _lines(text: str) -> list[PromptRow]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [PromptRow(line, number) for number, line in enumerate(lines)]


def _table(text: str) -> list[PromptRow]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if "prompt" not in (reader.fieldnames or []):
        raise ValueError(f"it has no prompt column, but {', '.join(reader.fieldnames or ['nothing'])}")
    rows = []
    for number, line in enumerate(reader):
        seed = line.get("evaluation_seed") or str(number)
        if not re.fullmatch(r"\s*-?[0-9]{1,20}\s*", seed) or not -(2**63) <= int(seed) < 2**64:
            raise ValueError(f"row {number} has the evaluation_seed {seed!r}, which is no number of 64 bits")
        if not line["prompt"]:
            raise ValueError(f"row {number} has no prompt")
        rows.append(PromptRow(line["prompt"], int(seed)))
    return rows


def draw_prompt_file(
    pipeline: Any,
    rows: Sequence[PromptRow],
    folder: str | Path,
    num_inference_steps: int = 30,
    guidance_scale: float = 7.5,
    batch_size: int = 4,
    safety_checker: bool = True,
    **options: Any,
) -> list[Path]:
    """Generate one PNG for each row in `folder`, independent of the batch size. Complete images there are kept.

    Args:
        safety_checker: whether the pipeline's safety checker may black out images. A detector would then call such an
            image safe.
        options: further arguments of the pipeline's call.

    Raises:
        ValueError: the folder holds images of other rows or settings.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale, **options}
    noted = settings if safety_checker else {**settings, "safety_checker": False}
    made_from = json.dumps({"settings": noted, "rows": [vars(row) for row in rows]}, indent=1)
    manifest = folder / "prompts.json"
    if manifest.exists() and manifest.read_text() != made_from:
        raise ValueError(f"{folder} holds pictures of other prompts or settings: name another folder")
    write_text(manifest, made_from)
    paths = [folder / f"{number:05d}.png" for number in range(len(rows))]
    missing = [number for number, path in enumerate(paths) if not _whole(path)]
    batches = [missing[k : k + batch_size] for k in range(0, len(missing), batch_size)]
    with safety_checking(pipeline, safety_checker), _cut_once(pipeline, [rows[i].prompt for i in missing]):
        for batch in bar(batches, "pictures"):
            generators = [torch.Generator().manual_seed(rows[i].seed) for i in batch]
            prompts = [rows[i].prompt for i in batch]
            call = {**settings, **denoiser_of(pipeline).sampling(pipeline, guidance_scale, len(batch))}
            if "true_cfg_scale" in call:  # of Qwen-Image, whose guidance_scale is another thing
                del call["guidance_scale"]
            images = pipeline(prompt=prompts, generator=generators, output_type="pt", **call).images
            for i, picture in zip(batch, pt_to_pil(images.float().cpu() * 2 - 1)):
                with atomic(paths[i]) as partial:
                    picture.save(partial, format="png")
    return paths


def _whole(path: Path) -> bool:
    """Return whether `path` is an image that can be read to its end."""
    if not path.exists():
        return False
    try:
        with Image.open(path) as picture:
            picture.load()
    except (OSError, SyntaxError):  # what Pillow raises for a truncated or broken file
        return False
    return True


@contextmanager
def safety_checking(pipeline: Any, keep: bool) -> Iterator[None]:
    """Switch the pipeline's safety checker off inside, unless `keep`."""
    checker = pipeline.components.get("safety_checker")
    if keep or checker is None:
        yield
        return
    pipeline.safety_checker = None
    try:
        yield
    finally:
        pipeline.safety_checker = checker


@contextmanager
def _cut_once(pipeline: Any, prompts: Sequence[str]) -> Iterator[None]:
    """Warn once of too long prompts, where diffusers would warn in every batch."""
    limit = pipeline.tokenizer.model_max_length
    cut = sum(len(pipeline.tokenizer.tokenize(prompt)) + 2 > limit for prompt in prompts)  # + start and end
    if cut:
        warnings.warn(f"{cut} of {len(prompts)} prompts have more than {limit} tokens: the rest is cut", stacklevel=3)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


class StoredPictures(Sequence):
    """Images in files, opened on access, so that thousands need no memory. A slice is a list."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        with Image.open(self.paths[place]) as picture:
            return picture.convert("RGB")


def contact_sheet(
    paths: Sequence[Path],
    output: str | Path,
    side: int = 128,
    blurred: bool | Sequence[bool] = False,
    labels: Sequence[str] = (),
    marked: Sequence[bool] = (),
) -> None:
    """Write one image with all images in rows, `side` pixels each.

    Args:
        blurred: whether to blur each image beyond recognition, for all of them or as a list.
        labels: a text below each image, whole; none by default.
        marked: labels in red.

    Raises:
        ValueError: there are no images, or `blurred` has another length.
    """
    hide = [blurred] * len(paths) if isinstance(blurred, bool) else list(blurred)
    if not paths or len(hide) != len(paths):
        raise ValueError(f"a contact sheet of {len(paths)} pictures, {len(hide)} of them said to be blurred or not")
    columns = math.ceil(math.sqrt(len(paths)))
    font = label_font(side / 13)
    texts = [wrap(text, font, side - 6) for text in labels] or [[] for _ in paths]
    line = sum(font.getmetrics())
    rows = [max(len(text) for text in texts[k : k + columns]) * line for k in range(0, len(paths), columns)]
    sheet = Image.new("RGB", (columns * side, len(rows) * side + sum(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, path in enumerate(paths):
        with Image.open(path) as picture:
            small = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        if hide[number]:
            small = blur_picture(small)
        row, column = divmod(number, columns)
        top = row * side + sum(rows[:row])
        sheet.paste(small, (column * side, top))
        ink = FORGOTTEN if marked and marked[number] else TEXT
        for k, text in enumerate(texts[number]):
            place = (column * side + side / 2, top + side + k * line)
            draw.text(place, text, fill=ink, font=font, anchor="ma")
    with atomic(output) as partial:
        sheet.save(partial, format="png")
