"""The configuration that --dry_run prints is the run's: all of it but secrets, and --config takes it back."""

import dataclasses
import types
import typing
from enum import Enum
from importlib import import_module

import pytest
import yaml

from hf_unlearn import METHODS
from hf_unlearn.cli.commands import COMMANDS
from hf_unlearn.cli.parsing import SECRETS, fitting, resolved

TRAINING = sorted(name for name, command in COMMANDS.items() if command.trains)
# Names with "token" in them that are no secrets.
NO_SECRETS = {"tokens", "include_num_input_tokens_seen", "average_tokens_across_devices"}
# What other flags or the computer forbid to change alone, and what is read while the flags are.
FIXED = {"torch_compile", "tf32", "deepspeed", "fsdp", "fsdp_config", "parallelism_config", "trackio_space_id"}
FIXED |= {"accelerator_config", "use_8bit_adam", "debug", "optim"}


@pytest.fixture
def parts_of(monkeypatch):
    """`parts_of(command, *flags)`: the dataclasses that the run would be given."""
    from hf_unlearn.cli import parsing

    stock, found = parsing.parse, []
    monkeypatch.setattr(parsing, "parse", lambda *args, **kwargs: found.append(stock(*args, **kwargs)) or found[-1])
    monkeypatch.setattr("hf_unlearn.cli.runs.skeleton.execute", lambda run, *called: None)

    def call(command: str, *flags) -> list:
        COMMANDS[command]([*map(str, flags)])
        return found.pop()

    return call


def other_values(hint, default) -> list:
    """Values of a type that are not the default, the plainest first; strings that YAML might take for something."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        words = [kind for kind in typing.get_args(hint) if isinstance(kind, type) and issubclass(kind, Enum)]
        if words:  # and str, which may be one of them only
            return [word.value for word in words[0] if word.value != default]
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        kinds = [bool] if bool in kinds else kinds  # transformers' flag of such a type takes yes and no only
        return [value for kind in kinds for value in other_values(kind, default)]
    if typing.get_origin(hint) is typing.Literal:
        return [v for v in typing.get_args(hint) if v != default]
    if typing.get_origin(hint) is list or hint is list:
        return [[v] * 2 for part in typing.get_args(hint)[:1] for v in other_values(part, None)]
    if hint is bool:
        return [not default]
    if hint is int:
        return [v for v in (8, 16, 2, 1) if v != default]
    if hint is float:
        return [v for v in (0.25, 1e-05, 2.0, 1.0) if v != default]
    return ["null", "1e5"] if hint is str else []


def changed(parts: list) -> tuple[list, int]:
    """The parts with every flag that can be changed changed, and how many these are."""
    made, count = [], 0
    for part in parts:
        hints = typing.get_type_hints(type(part))
        for field in (f for f in dataclasses.fields(part) if f.init and f.name not in FIXED | SECRETS):
            default = getattr(part, field.name)
            choices = [value for value in field.metadata.get("choices", ()) if value != default]
            for value in choices or other_values(hints[field.name], default):
                try:
                    part = dataclasses.replace(part, **{field.name: value})
                except (ValueError, ImportError):
                    continue
                count += 1
                break
        made.append(part)
    return made, count


CASES = [
    (command, method)
    for command in TRAINING
    for method in fitting(import_module(f"hf_unlearn.cli.commands.{command}").KINDS)
    if method in METHODS.built_in
]


@pytest.mark.parametrize(("command", "method"), CASES)
def test_what_is_printed_is_what_is_read(parts_of, tmp_path, command, method):
    given, count = changed(parts_of(command, "--method", method))
    assert count > 40
    (tmp_path / "c.yaml").write_text(resolved(given))
    again = parts_of(command, "--config", tmp_path / "c.yaml")
    for ours, theirs in zip(given, again, strict=True):
        assert ours == theirs
    assert resolved(again) == resolved(given)


@pytest.mark.parametrize("command", TRAINING)
def test_secrets_stay_out_and_nothing_else_does(parts_of, command):
    parts = parts_of(command, "--hub_token", "hf_secret")
    names = {field.name for part in parts for field in dataclasses.fields(part)}
    assert {name for name in names if "token" in name} <= SECRETS | NO_SECRETS
    text = resolved(parts)
    assert "hf_secret" not in text and names - set(yaml.safe_load(text)) == names & SECRETS


def test_uce_names_its_tokens(parts_of):
    parts = parts_of("sd", "--method", "uce", "--tokens", "after")
    assert yaml.safe_load(resolved(parts))["tokens"] == "after"
