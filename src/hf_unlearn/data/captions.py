"""Captions of images: which column holds them, and whether each is a text; the files of a folder that hold them."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

DEFAULT = "text"
USUAL = ("caption", "prompt", "captions", "description")  # what other data sets call the column


def choose_column(names: Sequence[str], wanted: str = DEFAULT) -> str | None:
    """Return the caption column: `wanted`, or where that is the default, the only one of a usual name; else None.

    Raises:
        ValueError: a column other than the default is missing, or several have usual names.
    """
    if wanted in names:
        return wanted
    others = [name for name in names if name.casefold() in USUAL]
    if wanted != DEFAULT:
        raise ValueError(f"column {wanted!r} is not in the data, which has {', '.join(names)}")
    if len(others) > 1:
        raise ValueError(
            f"the data has no column {wanted!r}, but {' and '.join(others)}: say which holds the captions with "
            f"caption_column (--caption_column {others[0]})"
        )
    return others[0] if others else None


def captions_of(rows: Any, column: str) -> list[str]:
    """Return the captions of a `datasets.Dataset`.

    Raises:
        ValueError: the column holds something other than text, or a row has none.
    """
    kind, values = rows.features[column], list(rows[column])
    if getattr(kind, "dtype", None) not in ("string", "large_string") and any(value is not None for value in values):
        raise ValueError(f"column {column!r} holds {kind}, not texts: give each image one caption")
    missing = [i for i, value in enumerate(values) if not isinstance(value, str)]
    if missing:
        raise ValueError(
            f"{len(missing)} images have no caption in column {column!r}, the first at position {missing[0]}: write "
            "one, or leave them out"
        )
    return values


def check_metadata(path: Path, wanted: str | None = None) -> None:
    """Check a metadata.jsonl or metadata.csv of an image folder, line by line, before `datasets` reads it.

    Args:
        wanted: the caption column, whose values must be texts; None checks the images alone.

    Raises:
        ValueError: a line is no row, names an image that is not there, or has no caption. The
            message names the file and the line.
    """
    try:
        rows = list(_rows(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error}): write it in UTF-8") from error
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    column = None if wanted is None else choose_column(names, wanted)
    for line, row in rows:
        where = f"line {line} of {path}"
        file = next((value for name, value in row.items() if name.endswith("file_name")), None)
        if not isinstance(file, str) or not file:
            raise ValueError(f"{where} has no file_name: name the image that it describes")
        if not (path.parent / file).is_file():
            raise ValueError(f"{where} names {file}, which is not there: add the image, or remove the line")
        if column is not None and not isinstance(row.get(column), str):
            said = json.dumps(row.get(column), ensure_ascii=False)[:60]
            raise ValueError(f"{where} has {said} as {column!r}: give the image one caption, a text")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, row) of a file; what a csv file leaves empty is None."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for row in reader:
                yield reader.line_num, {name: value or None for name, value in row.items() if name is not None}
        return
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path.parent} does not load: line {number} of {path.name} is no JSON ({error}); write one row a line"
            ) from error
        if not isinstance(row, dict):
            raise ValueError(f'line {number} of {path} is no row: write {{"file_name": ..., "text": ...}}')
        yield number, row
