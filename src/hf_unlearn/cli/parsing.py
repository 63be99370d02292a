"""Flags from dataclasses and a YAML file; every user error is one line."""

import argparse
import dataclasses
import sys
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser

from ..common.errors import redact
from ..methods import METHODS, Method
from .grouping import Formatter, Help, group, once
from .terminal import CommandParser, OneLineErrors, check_writable, run

__all__ = ["CommandParser", "OneLineParser", "check_writable", "parse", "resolved", "run", "without_secrets"]


class OneLineParser(OneLineErrors, HfArgumentParser):
    """HfArgumentParser whose errors are one line and exit code 2."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **{"formatter_class": Formatter, "add_help": False, "allow_abbrev": False, **options})

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            self.error(f"{action.dest} must be one of {', '.join(map(str, action.choices))}, got {value!r}")


class _Repeatable(argparse.Action):
    """A list flag that may be given several times: `--f a --f b` is `--f a b`; the first one replaces the default."""

    def __call__(self, parser, namespace, values, option_string=None):
        given = vars(namespace).setdefault("_given", set())
        before = getattr(namespace, self.dest) if self.dest in given else []
        given.add(self.dest)
        setattr(namespace, self.dest, [*before, *values])


def fitting(kinds: Collection[str] | None) -> list[str]:
    """Return the names of the methods that work for models of these kinds (`Objective.kinds`) without data to learn,
    which a training command does not take; None takes all kinds."""
    fits = {name: kinds is None or not method.family or method.family in kinds for name, method in METHODS.items()}
    return [name for name, method in METHODS.items() if fits[name] and _without_learning(method) is None]


def _without_learning(method: type[Method]) -> str | None:
    """The name of what a method that learns is where there is nothing to learn; None if it is itself."""
    if not method.learns or "forget" not in method.streams:
        return None
    other = type(method().for_data(("forget", "retain")))
    return None if other is method else other.name


def parse(
    argument_classes: Sequence[type],
    argv: Sequence[str] | None = None,
    description: str = "",
    *,
    prog: str | None = None,
    kinds: Collection[str] | None = None,
    basic: Collection[str] | None = None,
    hidden: Sequence[type] = (),
    epilog: str | None = None,
) -> list[Any]:
    """Return instances of `argument_classes` and of `hidden`, then the Method that --method names.

    Values come from, later ones winning: the dataclass defaults, the method's --preset, the YAML of --config, the
    command line. Unknown flags and unknown YAML keys are errors.

    Args:
        kinds: Kinds of the models that the command takes; only methods that fit are offered. None offers all.
        basic: Flags that --help shows; --help_all shows the others too. None shows all.
        hidden: Dataclasses whose flags are taken but not shown.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    first = OneLineParser([], prog=prog)
    for flag in ("--config", "--method", "--preset"):
        first.add_argument(flag)
    early, _ = first.parse_known_args(argv)
    given = _read_yaml(early.config, first) if early.config else {}
    method = _method_of(early.method or given.get("method", "sfron"), kinds, first)

    classes = [*argument_classes, *hidden, method]
    parser = OneLineParser(classes, description=description, prog=prog, epilog=epilog)
    parser.usage = f"{parser.prog} [--flag VALUE ...]"
    shown = "Show the flags that most runs need, and exit." if basic is not None else "Show all flags, and exit."
    parser.add_argument("-h", "--help", action=Help, basic=basic, help=shown)
    if basic is not None:
        parser.add_argument("--help_all", "--help-all", action=Help, help="Show all flags, and exit.")
    parser.add_argument("--config", help="YAML file with any of these flags, without the dashes.")
    parser.add_argument("--method", default="sfron", choices=fitting(kinds), help="How to forget; it adds its flags.")
    _set_preset(parser, method, early.preset or given.get("preset", "stable"))
    _arrange(parser, hidden, method)
    _set_defaults(parser, given, early.config, method.name, _list_names(classes))
    namespace = vars(parser.parse_args(argv))
    made = []
    for cls in classes:
        names = {f.name for f in dataclasses.fields(cls) if f.init}
        made.append(cls(**{k: v for k, v in namespace.items() if k in names}))
    return made


def _method_of(name: Any, kinds: Collection[str] | None, parser: OneLineParser) -> type[Method]:
    if not isinstance(name, str) or name not in METHODS:
        parser.error(f"method {name!r} is not one of {', '.join(fitting(kinds))}")
    other = _without_learning(METHODS[name])
    if other is not None:
        parser.error(
            f"{name} needs data to learn, which this command does not take, and is {other} without: use --method "
            f"{other}, `hf-unlearn requests`, or UnlearnTrainer(learn_dataset=...) in Python"
        )
    if name not in fitting(kinds):
        names = ", ".join(fitting(kinds))
        parser.error(f"{name} works for {METHODS[name].family} models only: choose another method ({names})")
    return METHODS[name]


def _set_preset(parser: OneLineParser, method: type[Method], preset: Any) -> None:
    """Make the values of the method's preset the defaults; --preset names one of those there are."""
    if not method.presets:
        return
    if not isinstance(preset, str) or preset not in method.presets:
        parser.error(f"preset {preset!r} is not one of {', '.join(method.presets)}")
    parser.set_defaults(preset=preset, **method.presets[preset])


def _arrange(parser: OneLineParser, hidden: Sequence[type], method: type[Method]) -> None:
    """Show each flag once and in its group, let lists be repeated, hide what is only passed on."""
    unseen = {f.name for cls in hidden for f in dataclasses.fields(cls)}
    for action in parser._actions:
        if action.nargs == "+":
            action.__class__ = _Repeatable
        if action.dest in unseen:
            action.help = argparse.SUPPRESS
    once(parser)
    group(parser, {f.name for f in dataclasses.fields(method)})


def _list_names(classes: Sequence[type]) -> set[str]:
    """Names of the fields that take lists, alone (`list[str]`) or beside a word (`str | list[str]`)."""
    hints = [typing.get_type_hints(cls) for cls in classes]
    return {name for kinds in hints for name, kind in kinds.items() if "list" in str(kind)}


def _set_defaults(
    parser: OneLineParser, given: dict[str, Any], path: str | None, method: str, lists: Collection[str]
) -> None:
    """Make the values of a YAML file the defaults. Its keys are flags under any of their spellings."""
    known = {}
    for option, action in parser._option_string_actions.items():
        if not isinstance(action, Help | argparse._StoreFalseAction):
            known[option.lstrip("-").replace("-", "_")] = action
    for key, value in given.items():
        if key not in known:
            parser.error(f"{path}: unknown key {key!r} (flags of {method} without the dashes)")
        action = known[key]
        try:
            parser.set_defaults(**{action.dest: _convert(parser, action, value, action.dest in lists)})
        except (argparse.ArgumentError, ValueError) as error:
            parser.error(f"{path}: {key}: {error}")


def _read_yaml(path: str, parser: OneLineParser) -> dict[str, Any]:
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueErrors of dates and codings
        _refuse(parser, f"config {path} cannot be read: {error}")
    if not isinstance(given, dict):
        _refuse(parser, f"config {path} is not a mapping of flags to values")
    return {str(k).replace("-", "_"): v for k, v in given.items()}


def _refuse(parser: OneLineParser, message: str) -> NoReturn:
    parser.error(message)


def _convert(parser: OneLineParser, action: argparse.Action, value: Any, lists: bool = False) -> Any:
    """Return a YAML value as the flag would have read it: `learning_rate: 1e-4`, a string in YAML, is a number.

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
    read = [parser._get_value(action, str(v)) for v in (value if isinstance(value, list) else [value])]
    for part in read:
        parser._check_value(action, part)
    return read if isinstance(value, list) or action.nargs in ("+", "*") else read[0]


# Flags whose values are never shown: those of this package, and those that transformers' arguments add.
SECRETS = {"hub_token", "push_to_hub_token"}


def resolved(parts: Sequence[Any]) -> str:
    """Return all values of a run but its secrets as YAML that --config takes back."""
    return yaml.safe_dump({k: v for k, v in values_of(parts).items() if k not in SECRETS}, sort_keys=False)


def without_secrets(words: Sequence[str]) -> list[str]:
    """Return the words of a command but for the flags of secrets and their values, and with no token in the others."""
    kept: list[str] = []
    hiding = False
    for word in words:
        if word.startswith("--"):
            hiding = word[2:].partition("=")[0].replace("-", "_") in SECRETS
        if not hiding:
            kept.append(redact(word))
    return kept


def values_of(parts: Sequence[Any]) -> dict[str, Any]:
    """Return all values of a run by flag. Parts are dataclasses or mappings."""
    values: dict[str, Any] = {}
    for part in parts:
        values.update(part if isinstance(part, Mapping) else dataclasses.asdict(part))
        if isinstance(part, Method):
            values["method"] = part.name
    return values
