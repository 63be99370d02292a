"""Every bad input of the corpus is one line and exit code 2; what was there before is there after, byte for byte."""

import hashlib
import runpy
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import cases_commands
import cases_files
import cases_flags
import pytest
from corpus import Case
from spoil import CARD, make_given

ROOT = Path(__file__).parents[2]
SCRIPTS = [*(ROOT / "scripts").glob("*.py"), ROOT / "benchmarks/train_emoji_sd.py"]
CASES = [*cases_flags.CASES, *cases_files.CASES, *cases_commands.CASES]


@pytest.fixture(scope="session")
def given(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("given")
    make_given(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", interrupted_run(root))
        runpy.run_path(sys.argv[0])["main"]()
    shutil.move(root / "interrupted/checkpoint-1", root / "checkpoint-1")
    shutil.rmtree(root / "interrupted")
    return root


def interrupted_run(root: Path) -> list[str]:
    """A run whose first checkpoint the cases resume from."""
    resumed = next(case for case in CASES if "checkpoint-1" in case.call)
    flags = resumed.argv(work=root, out=root / "interrupted")
    flags = flags[: flags.index("--resume_from_checkpoint")]
    return [str(ROOT / "scripts" / f"{flags[0]}.py"), *flags[1:], "--checkpointing_steps", "1"]


@pytest.fixture
def places(given, tmp_path, monkeypatch) -> dict[str, Path]:
    """{work} and {out}; the current folder is neither, and no stored login or cache is in reach."""
    for name in ("work", "out", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "out/README.md").write_text(CARD)
    (tmp_path / "out/model.safetensors").write_bytes(b"weights of an earlier run")
    return {"work": tmp_path / "work", "out": tmp_path / "out"}


@pytest.fixture
def call(run_script, monkeypatch, capsys):
    """`call(argv)`: (exit code, output, error) of a script or of hf-unlearn, in this process."""
    from hf_unlearn.__main__ import main

    if find_spec("gradio") is None:  # an extra; what is wrong with the rest of the command is said all the same
        monkeypatch.setitem(sys.modules, "gradio", ModuleType("gradio"))

    def run(argv: list[str]) -> tuple[int, str, str]:
        if argv[0] != "hf-unlearn":
            return run_script(next(path for path in SCRIPTS if path.stem == argv[0]), *argv[1:])
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capsys.readouterr()

    return run


def contents(root: Path) -> dict[str, str]:
    """Path -> hash of all files below `root`; of a link its target."""
    found = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def spoiled(case: Case, given: Path, places: dict[str, Path]) -> list[str]:
    """Copy what the call names, spoil it; the command line."""
    for folder in given.iterdir():
        if f"{{work}}/{folder.name}" in case.call:
            shutil.copytree(folder, places["work"] / folder.name)
    case.spoil(places["work"])
    return case.argv(**places)


def check_refused(case: Case, result: tuple[int, str, str], before: dict[str, str], root: Path) -> None:
    code, output, error = result
    lines = [line for line in error.splitlines() if "error:" in line]
    assert code == 2 and len(lines) == 1 and "Traceback" not in error, output + error
    assert case.says in lines[0].split("error:", 1)[1] and len(lines[0]) < 700, lines[0]
    after = contents(root)
    assert before.items() <= after.items()
    new = [name for name in after.keys() - before.keys() if not name.startswith("out/cache/")]
    assert not new and not list(root.rglob("RAN"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case, given, places, call, tmp_path):
    argv = spoiled(case, given, places)
    before = contents(tmp_path)
    check_refused(case, call(argv), before, tmp_path)


def test_the_corpus_covers_every_script_and_command():
    from hf_unlearn.__main__ import COMMANDS

    called = [case.argv(work="w", out="o") for case in CASES]
    assert len({case.name for case in CASES}) == len(CASES) >= 60
    assert {argv[0] for argv in called} - {"hf-unlearn"} == {path.stem for path in SCRIPTS}
    assert {argv[1] for argv in called if argv[0] == "hf-unlearn"} == {n for n, c in COMMANDS.items() if not c.trains}
