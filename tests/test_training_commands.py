"""The flags of hf-unlearn ddpm, dit, t2i (sd) and classify: one vocabulary, hidden aliases, grouped help."""

import dataclasses
import re
from importlib import import_module

import pytest
import yaml

from hf_unlearn import METHODS, Classification, DiTPrediction, NoisePrediction, TextToImage
from hf_unlearn.cli.commands import COMMANDS
from hf_unlearn.cli.grouping import ALWAYS, GROUPS

TRAINING = sorted(name for name, command in COMMANDS.items() if command.trains)
FAMILIES = {
    "ddpm": NoisePrediction,
    "dit": DiTPrediction,
    "t2i": TextToImage,
    "sd": TextToImage,
    "classify": Classification,
}
# command, old spelling, new spelling, a value
ALIASES = [
    ("ddpm", "judge_model_name_or_path", "classifier_model_name_or_path", "some/model"),
    ("dit", "judge_model_name_or_path", "classifier_model_name_or_path", "some/model"),
    ("ddpm", "judge_revision", "classifier_revision", "v1"),
    ("dit", "judge_revision", "classifier_revision", "v1"),
    ("classify", "model_name_or_path", "pretrained_model_name_or_path", "some/model"),
    ("classify", "model_revision", "revision", "v1"),
    ("classify", "train_dir", "train_data_dir", "."),
    ("classify", "validation_dir", "validation_data_dir", "."),
    ("classify", "image_column_name", "image_column", "img"),
    ("classify", "label_column_name", "label_column", "fine"),
    ("classify", "max_steps", "max_train_steps", 7),
    ("classify", "per_device_train_batch_size", "train_batch_size", 8),
    ("classify", "lr_scheduler_type", "lr_scheduler", "linear"),
    ("classify", "warmup_steps", "lr_warmup_steps", 3),
    ("classify", "weight_decay", "adam_weight_decay", 0.5),
    ("classify", "activation_checkpointing", "gradient_checkpointing", True),
    ("classify", "save_total_limit", "checkpoints_total_limit", 2),
]


@pytest.mark.parametrize(("command", "old", "new", "value"), ALIASES)
def test_an_old_spelling_sets_the_same_value(call, tmp_path, command, old, new, value):
    forget = ["--forget_class", "1"]
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({old: value}))
    given = {
        "old": [f"--{old}", value],
        "dashed": [f"--{old.replace('_', '-') if command == 'classify' else old}", value],
        "new": [f"--{new}", value],
        "yaml": ["--config", tmp_path / "old.yaml"],
    }
    if command != "classify" or "_" in old:
        del given["dashed"]
    outputs = {name: call(command, *flags, *forget, "--dry_run") for name, flags in given.items()}
    assert {code for code, _, _ in outputs.values()} == {0}, outputs
    values = [yaml.safe_load(text) for _, text, _ in outputs.values()]  # the plan says what is free at the moment
    assert all(each == values[0] for each in values)
    assert yaml.safe_load(outputs["old"][1])[new] == value
    assert f"--{old} " not in call(command, "--help_all")[1]


def listed(text: str) -> list[str]:
    return re.findall(r"^  (?:-h, )?--([a-z0-9_]+)", text, re.M)


@pytest.mark.parametrize("command", TRAINING)
def test_help_shows_the_few_and_help_all_each_flag_once(call, command):
    code, text, _ = call(command, "--help")
    few = set(listed(text)) - set(ALWAYS)
    assert code == 0 and 13 <= len(few) <= 17 and few == set(import_module_of(command).BASIC)
    code, text, _ = call(command, "--help_all")
    names = listed(text)
    assert code == 0 and len(names) == len(set(names)) and few < set(names)
    titles = [title for title in GROUPS if f"\n{title}:\n" in text]
    assert titles == [title for title in GROUPS if title != "Concept" or "\nConcept:\n" in text]
    grouped = {name for names in GROUPS.values() for name in names}
    fields = {f.name for f in dataclasses.fields(METHODS["sfron"])}
    assert set(names) <= grouped | fields | set(ALWAYS)
    assert "default: None" not in text.lower() and "Default: 64." in text or command in ("t2i", "sd", "dit")


def import_module_of(command: str):
    return import_module(f"hf_unlearn.cli.commands.{command}")


@pytest.mark.parametrize("command", TRAINING)
def test_only_methods_that_fit_are_offered(call, command):
    kinds = FAMILIES[command].kinds
    assert tuple(import_module_of(command).KINDS) == kinds
    text = call(command, "--help")[1]
    offered = re.search(r"--method \{([a-z0-9_,\s]+)\}", text).group(1).split(",")
    assert sorted(offered) == sorted(
        n for n, m in METHODS.items() if n != "clu" and (not m.family or m.family in kinds)
    )
    for name in sorted(set(METHODS) - {*offered, "clu"}):
        code, _, error = call(command, "--method", name, "--dry_run")
        assert code == 2 and len(error.splitlines()) == 1
        assert f"{name} works for {METHODS[name].family} models only" in error


@pytest.mark.parametrize("command", ["ddpm", "dit"])
def test_timesteps_are_drawn_in_pairs(call, command):
    assert yaml.safe_load(call(command, "--dry_run")[1])["antithetic"] is True
    assert yaml.safe_load(call(command, "--dry_run", "--no_antithetic")[1])["antithetic"] is False
    assert yaml.safe_load(call(command, "--dry_run", "--antithetic", "false")[1])["antithetic"] is False


def test_classify_reaches_all_training_arguments(call, tmp_path):
    more = ["--data_seed", "5", "--use_cpu", "--save_strategy", "steps", "--save_steps", "3"]
    code, first, error = call("classify", "--dry_run", *more, "--report_to", "none")
    values = yaml.safe_load(first)
    assert code == 0 and (values["data_seed"], values["use_cpu"], values["save_steps"]) == (5, True, 3), error
    (tmp_path / "again.yaml").write_text(first)
    assert yaml.safe_load(call("classify", "--config", tmp_path / "again.yaml")[1]) == values
    assert "data_seed" not in re.sub(r"such as .*", "", call("classify", "--help_all")[1])


def test_a_choice_is_checked_in_yaml_too(call, tmp_path):
    (tmp_path / "c.yaml").write_text("lora_select: magic\n")
    for flags in (["--lora_select", "magic"], ["--config", tmp_path / "c.yaml"]):
        code, _, error = call("ddpm", *flags, "--dry_run")
        assert code == 2 and "lora_select must be one of saliency, all, xattn, got 'magic'" in error


@pytest.mark.parametrize("command", TRAINING)
def test_a_method_that_learns_needs_a_command_that_does(call, tmp_path, command):
    """CLU without data to learn is SFR-on: a run under its name would not be what it says."""
    (tmp_path / "c.yaml").write_text("method: clu\n")
    for flags in (["--method", "clu"], ["--config", tmp_path / "c.yaml"]):
        code, _, error = call(command, *flags, "--dry_run")
        assert code == 2 and len(error.strip().splitlines()) == 1
        assert "--method sfron, `hf-unlearn requests`, or UnlearnTrainer(learn_dataset=...)" in error
    assert "clu" not in call(command, "--help_all")[1].split("--method")[1].split("}")[0].split(",")
