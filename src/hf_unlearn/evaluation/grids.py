"""Picture grids: a row for each model, a column for each class or prompt, labels whole.

The PNG says in a text chunk where each cell lies, so that a page can show the cells one by one (`read_layout`).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..common.files import atomic
from ..data.class_names import in_words
from .generation import SamplingConfig, sample_classes

SMALLEST, LARGEST = 256, 512  # pixels of a cell; smaller samples are enlarged, larger ones reduced
PER_BAND = 6  # columns side by side; more of them go on below
SEAM = 2  # pixels between the samples of a cell
GAP, FRAME = 24, 100  # between cells and around a marked one: a cell over this many
TEXT_SIZES = (0.09, 0.075, 0.06)  # of a cell: the largest at which no label takes more than LINES lines, else the last
LINES = 6
FORGOTTEN, TEXT, LINE, PAPER = "#cf222e", "#1f2328", "#d0d7de", "#ffffff"
LAYOUT = "hf_unlearn grid"


@dataclass
class Layout:
    """Where the cells of a grid lie. `cells[row][column]` is (left, top, right, bottom) in pixels."""

    rows: list[str]
    columns: list[str]
    marked: list[bool]
    cells: list[list[tuple[int, int, int, int]]]


def before_after(
    pipelines: dict[str, Any],
    classes: Sequence[int],
    forget_classes: Sequence[int],
    path: str | Path,
    config: SamplingConfig | None = None,
    title: str = "",
    class_names: Mapping[int, str] | None = None,
) -> None:
    """Write a PNG with a row for each model, a column for each class and 2x2 samples in each cell.

    The samples of a column start from the same noise.
    """
    grids = {}
    draw = config or SamplingConfig()
    four = SamplingConfig(4, draw.guidance_scale, draw.num_inference_steps, draw.seed, 4)
    for name, pipeline in pipelines.items():
        images = sample_classes(pipeline, list(classes), four)
        grids[name] = images.view(len(classes), 4, *images.shape[1:])
    save_grid(grids, in_columns(classes, class_names), [c in forget_classes for c in classes], path, title)


def in_columns(classes: Sequence[int], class_names: Mapping[int, str] | None) -> list[str]:
    """What columns of classes are called, as in the record: a page finds the anchor's column by it."""
    return [in_words(c, class_names or {}) for c in classes]


def save_grid(
    grids: dict[str, Tensor],
    columns: Sequence[str],
    marked: Sequence[bool],
    path: str | Path,
    title: str = "",
    notes: Sequence[str] = (),
) -> Layout:
    """Draw `grids` (name -> (columns, n, C, H, W) in [-1, 1], n a square number) and frame the marked columns.

    Args:
        notes: a word below the name of each column, such as "anchor"; a marked one has "forget".

    Returns:
        What the file says of itself.
    """
    said = list(notes) or ["" for _ in columns]
    labels = [(name, "forget" if mark else note) for name, mark, note in zip(columns, marked, said)]
    sheets = {row: [cell_picture(cell) for cell in cells] for row, cells in grids.items()}
    picture, layout = draw_grid(sheets, labels, marked, title)
    info = PngInfo()
    info.add_itxt(LAYOUT, json.dumps(asdict(layout)), zip=True)
    with atomic(path) as partial:
        picture.save(partial, format="PNG", pnginfo=info)
    return layout


def draw_grid(
    sheets: dict[str, list[Image.Image]],
    labels: Sequence[tuple[str, str]],
    marked: Sequence[bool],
    title: str = "",
) -> tuple[Image.Image, Layout]:
    """Lay out pictures of one size, a row for each name and a column for each (label, note), in bands of PER_BAND."""
    wide, high = next(iter(sheets.values()))[0].size
    gap, frame = wide // GAP, wide // FRAME
    font, wrapped = _fitting([f"{name}\n{note}".strip("\n") for name, note in labels], wide)
    line, count = _line_height(font), len(labels)
    names = {row: wrap(row, font, 2 * wide) for row in sheets}
    left = gap + math.ceil(max(font.getlength(text) for lines in names.values() for text in lines)) + 2 * gap
    bands = -(-count // PER_BAND)
    each = -(-count // bands)  # columns of a band: as many in each, as far as that goes
    top = gap + (2 * line if title else 0)
    heads = [max(len(text) for text in wrapped[k : k + each]) * line for k in range(0, count, each)]
    band = len(sheets) * (high + gap)
    picture = Image.new("RGB", (left + each * (wide + gap), top + sum(heads) + bands * (band + 2 * gap)), PAPER)
    draw = ImageDraw.Draw(picture)
    if title:
        draw.text((picture.width / 2, gap), title, fill=TEXT, font=font, anchor="ma")
    cells: list[list[tuple[int, int, int, int]]] = [[] for _ in sheets]
    for number in range(count):
        here, place = divmod(number, each)
        x, y = left + place * (wide + gap), top + sum(heads[: here + 1]) + here * (band + 2 * gap)
        colour = FORGOTTEN if marked[number] else TEXT
        for k, text in enumerate(reversed(wrapped[number])):
            draw.text((x + wide / 2, y - k * line), text, fill=colour, font=font, anchor="md")
        for row, (name, pictures) in enumerate(sheets.items()):
            lower = y + gap // 2 + row * (high + gap)
            picture.paste(pictures[number], (x, lower))
            box = (x, lower, x + wide, lower + high)
            cells[row].append(box)
            edge, ink = (frame, FORGOTTEN) if marked[number] else (1, LINE)
            draw.rectangle((x - edge, lower - edge, x + wide + edge - 1, lower + high + edge - 1), None, ink, edge)
            if place == 0:
                middle = lower + high / 2 - (len(names[name]) - 1) * line / 2
                for k, text in enumerate(names[name]):
                    draw.text((left - 2 * gap, middle + k * line), text, fill=TEXT, font=font, anchor="rm")
    return picture, Layout(list(sheets), [name for name, _ in labels], [bool(mark) for mark in marked], cells)


def read_layout(image: Image.Image) -> Layout | None:
    """Return what a grid says of itself; None for another picture, and for one whose words do not fit it."""
    try:
        said = json.loads(getattr(image, "text", {}).get(LAYOUT, "null"))
        found = Layout(
            [str(row) for row in said["rows"]],
            [str(name) for name in said["columns"]],
            [bool(mark) for mark in said["marked"]],
            [[tuple(map(int, box)) for box in row] for row in said["cells"]],  # type: ignore[misc]
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    whole = len(found.cells) == len(found.rows) and len(found.marked) == len(found.columns) > 0
    whole = whole and all(len(row) == len(found.columns) for row in found.cells)
    return found if whole and all(_inside(box, image.size) for row in found.cells for box in row) else None


def _inside(box: tuple[int, ...], size: tuple[int, int]) -> bool:
    return len(box) == 4 and 0 <= box[0] < box[2] <= size[0] and 0 <= box[1] < box[3] <= size[1]


def cell_picture(images: Tensor) -> Image.Image:
    """Tile images (n, C, H, W) in [-1, 1], n a square number, SMALLEST to LARGEST pixels wide.

    Small samples are enlarged by a whole number, pixel by pixel, so that nothing is added to them; large ones are
    reduced with a Lanczos filter.
    """
    side = math.isqrt(len(images))
    height, width = images.shape[-2:]
    pictures = [to_picture(image) for image in images[: side**2]]
    if side * max(height, width) > LARGEST:
        factor = LARGEST / (side * max(height, width))
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        pictures = [picture.resize(size, Image.Resampling.LANCZOS) for picture in pictures]
    elif side * width < SMALLEST:
        times = -(-SMALLEST // (side * width))
        pictures = [picture.resize((width * times, height * times), Image.Resampling.NEAREST) for picture in pictures]
    wide, high = pictures[0].size
    sheet = Image.new("RGB", (side * (wide + SEAM) - SEAM, side * (high + SEAM) - SEAM), PAPER)
    for k, picture in enumerate(pictures):
        sheet.paste(picture, ((k % side) * (wide + SEAM), (k // side) * (high + SEAM)))
    return sheet


def to_picture(image: Tensor) -> Image.Image:
    """Return an image (C, H, W) in [-1, 1], C 1 or 3, as a picture."""
    levels = ((image.float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(levels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())


# ---- labels ----------------------------------------------------------------------------------
def label_font(size: float) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which matplotlib brings and which has most alphabets."""
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), max(round(size), 11))


def wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Break a text into lines of at most `width` pixels, between words, and within one that is longer than a line.

    A line break in the text stays. Nothing of it is left out.
    """
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else word
            if font.getlength(joined) <= width:
                line = joined
                continue
            lines += [line] if line else []
            while font.getlength(word) > width and len(word) > 1:
                fits = next(k for k in range(len(word) - 1, 0, -1) if k == 1 or font.getlength(word[:k]) <= width)
                lines.append(word[:fits])
                word = word[fits:]
            line = word
        lines.append(line)
    return lines


def _fitting(texts: Sequence[str], width: int) -> tuple[ImageFont.FreeTypeFont, list[list[str]]]:
    """The largest font in which no text takes more than LINES lines, else the smallest, and the lines."""
    for share in TEXT_SIZES:
        font = label_font(share * width)
        wrapped = [wrap(text, font, width) for text in texts]
        if max(map(len, wrapped)) <= LINES:
            break
    return font, wrapped


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    ascent, descent = font.getmetrics()
    return ascent + descent
