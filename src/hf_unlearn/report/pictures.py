"""The pictures of a page: a grid cell by cell where it says where these lie, else as a whole."""

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from ..evaluation.grids import Layout, read_layout
from .record import RunRecord

FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
COURSE_FILE = "requests.png"  # what a sequence of requests draws
FORGET_CELLS, RETAIN_CELLS = 12, 8  # columns of the grid that a page shows
QUALITY = 90  # of WebP


@dataclass
class Cell:
    """One picture: its caption, a data URI and its size in pixels."""

    name: str
    address: str
    width: int
    height: int


@dataclass
class Shown:
    """What a page shows of one class or prompt: its name, and a picture of each model, then of its anchor."""

    name: str
    cells: list[Cell]


@dataclass
class Pictures:
    """`forgotten` and `stayed` by class or prompt; or `whole`, a picture that does not say where its cells lie.

    left_out: how many forgotten classes or prompts are in the file only.
    """

    whole: dict[str, Any] | None = None
    forgotten: list[Shown] | None = None
    stayed: list[Shown] | None = None
    left_out: int = 0


def pictures_of(record: RunRecord, folder: str | Path) -> Pictures | None:
    """The pictures of a run, or None if the folder has none.

    Raises:
        ValueError: the record's picture is not one, or lies outside of the folder.
    """
    if record.picture is None:
        return None
    if Path(record.picture).name != record.picture:
        raise ValueError(f"picture {record.picture!r} of the record is not a file in the run's folder")
    found = _opened(Path(folder), record.picture)
    if found is None:
        return None
    image, kind, content = found
    layout = read_layout(image)
    if layout is None:
        return Pictures(whole=_whole(image, kind, content))
    anchors = {_plain(name): _plain(anchor or "") for name, anchor in _anchors(record)}
    marked = [k for k, mark in enumerate(layout.marked) if mark]
    others = [k for k, mark in enumerate(layout.marked) if not mark]
    return Pictures(
        forgotten=[_column(image, layout, k, anchors) for k in marked[:FORGET_CELLS]],
        stayed=[_column(image, layout, k, {}) for k in others[:RETAIN_CELLS]],
        left_out=max(len(marked) - FORGET_CELLS, 0),
    )


def course_of(folder: str | Path) -> dict[str, Any] | None:
    """The picture that a sequence of requests drew in the run's folder, if there is one."""
    found = _opened(Path(folder), COURSE_FILE)
    return None if found is None else _whole(*found)


def _anchors(record: RunRecord) -> list[Any]:
    return record.objective.anchors if record.objective is not None else []


def _plain(name: str) -> str:
    return " ".join(name.split())


def _opened(folder: Path, name: str) -> tuple[Image.Image, str, bytes] | None:
    """(image, format, content) of a file in the folder; None if it is not there."""
    path = folder / name
    if not path.is_file():
        return None
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path} leads out of the run's folder: put a copy there")
    content = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(content))
            kind = str(image.format)
            if kind in FORMATS:
                image.load()
        except UnidentifiedImageError as error:
            raise ValueError(f"{path} is not a picture") from error
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} has too many pixels: {' '.join(str(error).split())}") from error
        except (OSError, ValueError, SyntaxError) as error:
            raise ValueError(f"{path} is not a whole picture: {' '.join(str(error).split())}") from error
    if kind not in FORMATS:
        raise ValueError(f"{path} is {kind}, which browsers do not show: save it as PNG")
    return image, kind, content


def _whole(image: Image.Image, kind: str, content: bytes) -> dict[str, Any]:
    address = f"data:{FORMATS[kind]};base64,{base64.b64encode(content).decode()}"
    return {"address": address, "width": image.width, "height": image.height}


def _column(image: Image.Image, layout: Layout, number: int, anchors: dict[str, str]) -> Shown:
    """The cells of a column, and the first model's cell of its anchor where the grid has that."""
    cells = [_cell(image, row, layout.cells[k][number]) for k, row in enumerate(layout.rows)]
    name = _plain(layout.columns[number])
    anchor = anchors.get(name)
    places = [k for k, column in enumerate(layout.columns) if anchor and _plain(column) == anchor and k != number]
    if places:
        cells.append(_cell(image, f"anchor: {anchor}", layout.cells[0][places[0]]))
    return Shown(name, cells)


def _cell(image: Image.Image, name: str, box: tuple[int, int, int, int]) -> Cell:
    cell, made = image.crop(box).convert("RGB"), io.BytesIO()
    cell.save(made, "WEBP", quality=QUALITY)
    return Cell(name, f"data:image/webp;base64,{base64.b64encode(made.getvalue()).decode()}", *cell.size)
