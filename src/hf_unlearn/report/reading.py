"""Records from files: one reader for every dataclass, led by the types of its fields."""

import sys
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..common.untrusted import read_json
from .record import RECORD_FILE, SCHEMA_VERSION, RunRecord

T = TypeVar("T")


def read_record(folder: str | Path) -> RunRecord:
    """Read the record of a finished run. Files of an older schema are converted.

    Raises:
        ValueError: there is no record, it cannot be read, or it was written by a newer version.
    """
    path = Path(folder) / RECORD_FILE
    if not path.is_file():
        raise ValueError(f"{folder} holds no {RECORD_FILE}: give the output folder of a finished run")
    try:
        values = read_json(path)
        version = values["schema_version"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is not a record of a run: {error}") from error
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ValueError(f"{path} has schema {version}, this version reads {SCHEMA_VERSION}: upgrade hf-unlearn")
    try:
        return record_from_json(values)
    except ValueError as error:
        raise ValueError(f"{path} is not a record of a run: {error}") from error


def record_from_json(values: dict[str, Any]) -> RunRecord:
    """Make a record of what a file of this or of an older schema holds.

    Raises:
        ValueError: a field is missing or has another type.
    """
    if values.get("schema_version", SCHEMA_VERSION) < 2 and values.get("adapter") == {}:
        values = {**values, "adapter": None}  # schema 1 wrote an empty mapping where there was no adapter
    record = from_json(RunRecord, {**values, "schema_version": SCHEMA_VERSION}, "")
    for number, row in enumerate(record.log):
        if row.get("step") is None:
            raise ValueError(f"log[{number}].step is missing")
    return record


def from_json(kind: type[T], value: Any, where: str) -> T:
    """Make a dataclass of a mapping, field by field. Keys that are no field are passed over.

    Args:
        where: the place of `value` in the file, for the message; "" for the file itself.

    Raises:
        ValueError: a field is missing or has another type.
    """
    if not isinstance(value, dict):
        raise _wrong(value, where)
    hints = get_type_hints(kind, include_extras=True)
    places = {name: f"{where}.{name}".strip(".") for name in hints}
    read = {name: typed(hint, value[name], places[name]) for name, hint in hints.items() if name in value}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name not in read and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{places[field.name]} is missing")
    return kind(**read)


def typed(hint: Any, value: Any, where: str) -> Any:
    """Read a value of a type: a scalar, `X | None`, list, dict, NamedTuple, dataclass, or Any for anything.

    Raises:
        ValueError: the value has another type, or is no finite number; the message begins with `where`.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return typed(parts[0], value, where)
    if origin in (Union, UnionType):
        (other,) = (part for part in parts if part is not NoneType)
        return None if value is None else typed(other, value, where)
    if origin is list:
        return [typed(parts[0], item, f"{where}[{i}]") for i, item in enumerate(_of(list, value, where))]
    if origin is dict:
        return {_key(key, where): typed(parts[1], v, f"{where}.{key}") for key, v in _of(dict, value, where).items()}
    if is_dataclass(hint):
        return from_json(hint, value, where)  # type: ignore[arg-type]
    if isinstance(hint, type) and issubclass(hint, tuple):
        return _row(hint, value, where)
    return value if hint is Any else _scalar(hint, value, where)


def _scalar(kind: type, value: Any, where: str) -> Any:
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise _wrong(value, where)
    if kind is float and not abs(value) <= sys.float_info.max:
        raise ValueError(f"{where} is {value}, which is no finite number")
    return value


def _row(kind: type, value: Any, where: str) -> Any:
    """A NamedTuple, which a file has as a list."""
    hints = get_type_hints(kind)
    if not isinstance(value, list | tuple) or len(value) != len(hints):
        raise ValueError(f"{where} is no row of {len(hints)}")
    return kind(*(typed(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(hints.values(), value))))


def _of(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, kind):
        raise _wrong(value, where)
    return value


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise ValueError(f"{where} has the key {key}, which is a {type(key).__name__}")
    return key


def _wrong(value: Any, where: str) -> ValueError:
    return ValueError(f"{where or 'the file'} is a {type(value).__name__}")
