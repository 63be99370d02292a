"""The commands of hf-unlearn: help without heavy imports, and the versions for a bug report."""

import getpass
import json
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import tiny_pipeline, tiny_sd
from records import run_record

from hf_unlearn.__main__ import COMMANDS, main
from hf_unlearn.cli.commands.env import environment

HEAVY = (
    "torch",
    "transformers",
    "diffusers",
    "accelerate",
    "datasets",
    "peft",
    "gradio",
    "matplotlib",
    "numpy",
    "jinja2",
)
LIGHT = [name for name, command in COMMANDS.items() if not command.trains]
HELP = """
import sys
from hf_unlearn.__main__ import COMMANDS, main
for name in (None, *(name for name, command in COMMANDS.items() if not command.trains)):
    sys.argv = ["hf-unlearn", *([name] if name else []), "--help"]
    try:
        main()
    except SystemExit as stop:
        assert stop.code == 0, name
print("LOADED", *(m for m in sys.modules if "." not in m))
"""


def test_help_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    text, loaded = done.stdout.split("LOADED")
    assert {"argparse", "hf_unlearn"} <= set(loaded.split())
    assert not set(HEAVY) & set(loaded.split())
    for name in LIGHT:
        assert f"usage: hf-unlearn {name}" in text


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_every_command_has_one_line(monkeypatch, capsys, arguments):
    code, text, _ = call(monkeypatch, capsys, *arguments)
    assert code == 0
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.startswith("  ")]
    assert {name: told for name, told in lines if name in COMMANDS} == {n: c.help for n, c in COMMANDS.items()}
    assert all(len(line) < 100 for line in text.splitlines())


def call(monkeypatch, capsys, *argv) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["hf-unlearn", *map(str, argv)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code, *capsys.readouterr()


def test_env_names_versions_and_nothing_personal(monkeypatch, capsys):

    monkeypatch.setenv("HF_TOKEN", "hf_thisIsNoTokenButLooksLikeOne")
    code, text, _ = call(monkeypatch, capsys, "env", "--json")
    found = json.loads(text)
    assert code == 0 and found == environment()
    assert found["packages"]["torch"] == version("torch") and found["python"] == platform.python_version()
    code, lines, _ = call(monkeypatch, capsys, "env")
    assert code == 0 and f"torch                    {version('torch')}" in lines
    personal = [getpass.getuser(), platform.node(), str(Path.home()), str(Path.cwd()), "hf_this", "HF_TOKEN"]
    for word in filter(lambda word: len(word) > 3, personal):  # a shorter name may be part of any word
        assert word not in lines and word not in text, word


def test_env_says_what_an_extra_lacks(monkeypatch):
    from importlib import metadata

    from hf_unlearn.cli.commands import env

    class About:
        def get_all(self, name, default=None):
            wanted = ["torch>=2", 'torch>=1; extra == "good"', 'no-such-package>=1; extra == "bad"']
            wanted += ['torch>=99; extra == "new"', 'hf-unlearn[bad,good]; extra == "both"']
            return {"Requires-Dist": wanted, "Provides-Extra": ["good", "bad", "new", "both"]}[name]

    monkeypatch.setattr(env, "metadata", lambda name: About())
    monkeypatch.setattr(env, "_installed", lambda name: "1.0" if name == "hf-unlearn" else metadata_or_none(name))

    def metadata_or_none(name):
        return None if name == "no-such-package" else metadata.version(name)

    assert env.extras() == {
        "bad": "lacks no-such-package",
        "both": "lacks no-such-package",
        "good": "present",
        "new": "lacks torch",
    }
    monkeypatch.setattr(env, "_installed", lambda name: None)
    assert env.extras() == {}


@pytest.mark.parametrize("name", ["report", "attack", "check", "demo"])
def test_a_command_without_its_folder_is_one_line(monkeypatch, capsys, name):
    code, out, error = call(monkeypatch, capsys, name)
    assert code == 2 and not out and len(error.splitlines()) == 1 and "run_dir" in error


def test_the_commands_of_the_docs(tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[1] / "docs/commands.md").read_text()
    section = text.split("## What a run did")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z]+)", section, re.M)) == set(LIGHT)
    lines = [shlex.split(line)[1:] for line in section.splitlines() if line.startswith("hf-unlearn ")]
    assert {line[0] for line in lines} == set(LIGHT) - {
        "augment",
        "compare",
        "publish",
        "requests",
    }  # they have sections and tests
    monkeypatch.chdir(tmp_path)
    tiny_pipeline().save_pretrained("without-7")
    tiny_sd().save_pretrained("without-churches")
    base, loads = {"name": "digits_ddpm", "revision": None, "on_hub": False}, ["ClassConditionalDDPMPipeline"]
    run_record(base_model=base, loads_with=loads).write("without-7")
    launched = {}
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace())
    monkeypatch.setattr("hf_unlearn.cli.commands.demo.theme", lambda: "theme")
    monkeypatch.setattr("hf_unlearn.cli.commands.demo.app", lambda pair: SimpleNamespace(launch=launched.update))
    for line in lines:
        short = ["--attacks", "class_null", "--samples", "2", "--original", "without-7"]
        quick = {"saliency": ["--fisher_samples", "4"], "attack": short}.get(line[0], [])
        code, out, error = call(monkeypatch, capsys, *line, *quick)
        assert code == 0, error
    assert (tmp_path / "without-7/report.html").exists() and (tmp_path / "masks.safetensors").exists()
    assert (tmp_path / "without-churches/without-churches.safetensors").exists()
    assert launched["server_name"] == "127.0.0.1"
