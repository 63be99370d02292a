"""Command-line plumbing of the scripts: flags from dataclasses, a YAML file, one line for every user error."""

import argparse
import dataclasses
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from ..methods import METHODS, Method
from .terminal import CommandParser, OneLineErrors, check_writable, run

__all__ = ["CommandParser", "OneLineParser", "check_writable", "parse", "resolved", "run"]


class OneLineParser(OneLineErrors, HfArgumentParser):
    """HfArgumentParser whose errors are one line and exit code 2."""


class _Repeatable(argparse.Action):
    """A list flag that may be given several times: `--f a --f b` is `--f a b`; the first one replaces the default."""

    def __call__(self, parser, namespace, values, option_string=None):
        given = vars(namespace).setdefault("_given", set())
        before = getattr(namespace, self.dest) if self.dest in given else []
        given.add(self.dest)
        setattr(namespace, self.dest, [*before, *values])


def parse(argument_classes: Sequence[type], argv: Sequence[str] | None = None, description: str = "") -> list[Any]:
    """Instances of `argument_classes`, then the Method that --method names with its own fields.

    Values come from, later ones winning: the dataclass defaults, the method's --preset, the YAML of --config, the
    command line. Unknown flags and unknown YAML keys are errors.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    first = OneLineParser([], add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    first.add_argument("--method")
    first.add_argument("--preset")
    early, _ = first.parse_known_args(argv)
    given = _read_yaml(early.config, first) if early.config else {}
    name = early.method or given.get("method", "sfron")
    if not isinstance(name, str) or name not in METHODS:
        first.error(f"method {name!r} is not one of {', '.join(METHODS)}")
    method = METHODS[name]

    parser = OneLineParser([*argument_classes, method], description=description, allow_abbrev=False)
    parser.add_argument("--config", help="YAML file with any of these flags")
    parser.add_argument("--method", default="sfron", choices=sorted(METHODS), help="how to forget; it adds its flags")
    if method.presets:
        preset = early.preset or given.get("preset", "stable")
        if not isinstance(preset, str) or preset not in method.presets:
            parser.error(f"preset {preset!r} is not one of {', '.join(method.presets)}")
        parser.set_defaults(preset=preset, **method.presets[preset])
    known = {action.dest: action for action in parser._actions}
    for action in known.values():
        if action.nargs == "+":
            action.__class__ = _Repeatable
    bases = [base for cls in (*argument_classes, method) for base in cls.__mro__]
    kinds = {name: kind for base in bases for name, kind in inspect.get_annotations(base).items()}
    lists = {name for name, kind in kinds.items() if "list" in str(kind)}  # report_to is a word or a list of them
    for key, value in given.items():
        if key not in known:
            parser.error(f"{early.config}: unknown key {key!r} (flags of {name} without the dashes)")
        try:
            parser.set_defaults(**{key: _convert(parser, known[key], value, key in lists)})
        except (argparse.ArgumentError, ValueError) as error:
            parser.error(f"{early.config}: {key}: {error}")
    namespace = vars(parser.parse_args(argv))
    made = []
    for cls in (*argument_classes, method):
        fields = {f.name for f in dataclasses.fields(cls) if f.init}
        made.append(cls(**{k: v for k, v in namespace.items() if k in fields}))
    return made


def _read_yaml(path: str, parser: argparse.ArgumentParser) -> dict[str, Any]:
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueErrors of dates and codings
        parser.error(f"config {path} cannot be read: {error}")
    if not isinstance(given, dict):
        parser.error(f"config {path} is not a mapping of flags to values")
    return {str(k).replace("-", "_"): v for k, v in given.items()}


def _convert(parser: argparse.ArgumentParser, action: argparse.Action, value: Any, lists: bool = False) -> Any:
    """A YAML value as the flag would have read it, so that `learning_rate: 1e-4` (a string in YAML) is a number.

    Raises:
        ValueError: nothing where the flag has a default, a list for a flag that takes one value, or a list in a list
            (which aliases can make larger than any memory before it is text).
    """
    several = lists or action.nargs in ("+", "*")
    if value is None and (action.default is not None or action.required):
        raise ValueError("there is no value: give one, or leave the key out")
    for part in value if isinstance(value, list) and several else [value]:
        if isinstance(part, dict | list | set) or (part is None and several and value is not None):
            raise ValueError(f"takes {'a list of values' if several else 'one value'}, each a word or a number")
    if value is None or action.type is None:
        return value
    if isinstance(value, list):
        return [parser._get_value(action, str(v)) for v in value]
    value = parser._get_value(action, str(value))
    return [value] if action.nargs in ("+", "*") else value


def resolved(parts: Sequence[Any]) -> str:
    """All values of a run as YAML that --config takes back."""
    values: dict[str, Any] = {}
    for part in parts:
        values.update(dataclasses.asdict(part))
        if isinstance(part, Method):
            values["method"] = part.name
    return yaml.safe_dump({k: v for k, v in values.items() if "token" not in k}, sort_keys=False)
