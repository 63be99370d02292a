"""docs/report_schema.md: the fields of unlearning_report.json, from the dataclasses of `record`."""

from collections.abc import Iterator
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from .record import SCHEMA_VERSION, RunRecord

NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", Any: "anything"}
HEAD = f"""# unlearning_report.json, schema {SCHEMA_VERSION}

<!-- Written by `python tools/report_schema.py`. Change the texts in src/hf_unlearn/report/record.py. -->

Every training command writes this file beside the model. The card, `hf-unlearn report` and `hf-unlearn check` read
nothing else. From Python, `hf_unlearn.report.reading.read_record(folder)` gives a `RunRecord` with the same fields.

`schema_version` grows when a field changes its meaning or goes. A new field does not raise it, and readers pass over
fields that they do not know. A reader refuses a file with a newer version and converts one with an older version:
schema 1 wrote `{{}}` for `adapter` where there was none, and had neither `weights` nor `objective`. Numbers that are
not finite are `null`. Paths of folders are cut to their last part.

"""
TAIL = """
The name of a metric says what it is about. `forget_*`, `concept_share*` and `unsafe_share*` are about what was to be
forgotten; `retain_*`, `test_*`, `frechet_distance*` and `clip_score*` about what was to be kept; `average_gap` and
`mia_*` about what an attacker sees; `recovered_*` (shares) and `relearning_*` (steps) about what an attack brought
back, with its budget, the result of each seed, its `ceiling` and its `positive` and `negative` control in the details.
A metric of another package may say it in `role`. Names that end in `_accuracy` or `_share`, also with the name of a
sampler or of a reading behind it, and those that begin with `recovered_` are shares from 0 to 1.
"""


class Row(NamedTuple):
    """One line of the table."""

    field: str
    kind: str
    text: str


def schema_page() -> str:
    """The whole page."""
    lines = [f"| `{row.field}` | {row.kind} | {row.text} |" for row in rows(RunRecord)]
    return f"{HEAD}| field | type | what it is |\n|---|---|---|\n" + "\n".join(lines) + "\n" + TAIL


def rows(kind: type, prefix: str = "") -> Iterator[Row]:
    """A row for each field of a dataclass, followed by the rows of the dataclass inside it."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        bare, (text, *keys) = get_args(hint)[0], hint.__metadata__
        yield Row(f"{prefix}{name}", said(bare), text)
        inner, path = inside(bare, keys)
        if inner is not None:
            yield from rows(inner, f"{prefix}{name}{path}.")


def inside(hint: Any, keys: list[str]) -> tuple[type | None, str]:
    """The dataclass inside containers, or None, and the path to it: `[]` for a list, `.<key>` for a mapping."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return inside(next(part for part in parts if part is not NoneType), keys)
    if origin is list:
        inner, path = inside(parts[0], keys)
        return inner, f"[]{path}"
    if origin is dict:
        inner, path = inside(parts[1], keys[1:])
        return inner, f".<{keys[0]}>{path}" if keys else path
    return (hint, "") if is_dataclass(hint) else (None, "")  # type: ignore[return-value]


def said(hint: Any) -> str:
    """A type in the words of JSON."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return said(parts[0])
    if origin in (Union, UnionType):
        return f"{said(next(part for part in parts if part is not NoneType))} or null"
    if origin is list:
        return f"list of {_many(parts[0])}"
    if origin is dict or is_dataclass(hint):
        return "object"
    if isinstance(hint, type) and issubclass(hint, tuple):
        return f"row of {', '.join(said(part) for part in get_type_hints(hint).values())}"
    return NAMES[hint]


def _many(hint: Any) -> str:
    if get_origin(hint) is dict or is_dataclass(hint):
        return "objects"
    if isinstance(hint, type) and issubclass(hint, tuple):
        return f"rows of {', '.join(said(part) for part in get_type_hints(hint).values())}"
    return f"{said(hint)}s"
