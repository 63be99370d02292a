"""What a cell depends on: the modules that it runs change its key, and no others do."""

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType

import pytest
from test_compare import TINY

import hf_unlearn
from hf_unlearn import ESD, METHODS, FineTune, SFRon
from hf_unlearn.common.imports import Sources, code_of
from hf_unlearn.compare import Cells
from hf_unlearn.compare.closure import MODELS, NAMING, modules_run, outside, registries, source_of

PACKAGE = Path(hf_unlearn.__file__).parent
SOURCES = Sources(PACKAGE, "hf_unlearn")


def runs(module: str) -> set[str]:
    """The kinds of cells that run a module."""
    kinds = {"original": modules_run(), "models": modules_run(start=MODELS)}
    kinds |= {name: modules_run(METHODS[name]) for name in ("sfron", "esd", "salun")}
    return {kind for kind, modules in kinds.items() if module in modules}


EVERY = {"original", "models", "sfron", "esd", "salun"}
CASES = {
    "training.trainer": EVERY,
    "training.optim": EVERY,
    "families.classifier.objective": EVERY,
    "data.pairs": EVERY,
    "common.files": EVERY,
    "methods.base": EVERY,
    "methods.fine_tune": EVERY,
    "evaluation.membership": EVERY - {"models"},
    "evaluation.relearn": EVERY - {"models"},
    "compare.cells": EVERY - {"models"},
    "methods.sfron": {"sfron"},
    "methods.esd": {"esd"},
    "methods.random_label": {"salun"},  # SalUn is built on it
    "methods": set(),
    "methods.lur": set(),
    "cli.parsing": set(),
    "report.record": set(),
    "evaluation.fidelity": set(),
    "families.dit.objective": set(),
    "compare.spaces": set(),
    "compare.tables": set(),
    "": set(),
}


@pytest.mark.parametrize("module", CASES)
def test_what_a_cell_runs(module):
    assert module in SOURCES.paths and runs(module) == CASES[module]


def test_a_change_in_what_a_cell_runs_is_another_cell(tmp_path):
    """In a copy of the package: its loop, then another method with a command and a page, then words alone."""
    root = Path(shutil.copytree(PACKAGE, tmp_path / "hf_unlearn", ignore=shutil.ignore_patterns("assets")))

    def digests() -> list[str]:
        sources = Sources(root, "hf_unlearn")
        return [source_of(METHODS[name](), sources=sources) for name in ("sfron", "esd")]

    def add(text: str, *modules: str) -> None:
        for module in modules:
            path = root / module
            path.write_text(path.read_text() + text)

    first = digests()
    add("\n\nADDED = 1\n", "methods/esd.py", "methods/__init__.py", "cli/parsing.py", "report/record.py")
    second = digests()
    assert second[0] == first[0] and second[1] != first[1]
    add('\n\n# Words.\ndef added():\n    """Words."""\n', "training/optim.py")
    third = digests()
    assert all(digest not in (*first, *second) for digest in third)
    path = root / "training/optim.py"
    path.write_text(path.read_text().replace("Words.", "Other words."))
    assert digests() == third


def test_comments_docstrings_and_layout_are_not_code():
    source = (
        '"""A."""\n\n\nclass A:\n    """B."""\n\n    def f(self, x):\n        """C."""\n        return {"a":x}  # D\n'
    )
    assert code_of(source) == "class A:\n\n    def f(self, x):\n        return {'a': x}"


def test_the_key_of_a_cell_holds_the_source_of_its_own_method(tmp_path, monkeypatch):
    """What a search or a table reads is named by it."""
    cells = Cells(TINY, tmp_path)
    asked = []
    monkeypatch.setattr("hf_unlearn.compare.cells.source_of", lambda *of, **start: str(asked.append((*of, start))))
    for row in ("retrained", "finetune", "sfron:paper"):
        cells.cell_path(row, 0, "test", {"learning_rate": 1e-3})
    assert [type(of) for of, _ in asked] == [type(None), FineTune, SFRon]


def test_all_that_runs_is_in_the_closure(tmp_path):
    """The files whose functions are called while a cell and its models are computed. Registries only choose."""
    called: set[CodeType] = set()
    recipe = replace(TINY, train={"max_steps": 2}, budget=2, max_retain_samples=50)
    cells = Cells(recipe, tmp_path)
    cells.result("finetune", 0, "validation")  # modules are imported now, and the models trained
    shutil.rmtree(cells.models)
    cells.cell_path("sfron", 0, "test", {})  # digests are made once
    sys.setprofile(lambda frame, event, value: called.add(frame.f_code) if event == "call" else None)
    try:
        cells.result("sfron", 0, "test", {"learning_rate": 1e-3})
    finally:
        sys.setprofile(None)
    files = {Path(code.co_filename) for code in called}
    ran = {module for module, path in SOURCES.paths.items() if path in files}
    assert {"training.trainer", "methods.sfron", "methods.fine_tune", "evaluation.membership"} <= ran
    assert ran - modules_run(SFRon) - {*NAMING, "", *registries()} == set()


def test_registries_are_found_by_what_they_import():
    assert {module.split(".")[0] for module in registries()} == {"methods", "families"}
    assert "methods.esd" not in modules_run(SFRon) and "methods.esd" in modules_run(ESD)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """`installed(files)` makes a package of these files importable for this test."""
    made = []

    def make(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            made.append(path.parent.name if path.name == "__init__.py" else path.stem)

    monkeypatch.syspath_prepend(tmp_path)
    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] in made]:
        del sys.modules[name]


METHOD = """
from dataclasses import dataclass
from hf_unlearn import FineTune
{helper}

@dataclass(frozen=True)
class Outside(FineTune):
    name = "outside"
"""


@pytest.mark.parametrize("edited", ["plugin_of_two/method.py", "plugin_of_two/helper.py", "plugin_of_two/other.py"])
def test_a_method_of_another_package_is_part_of_the_key(installed, tmp_path, edited):
    """Its file, and what that imports from its package; a file beside it is not."""
    method = METHOD.format(helper="from .helper import x")
    files = {"__init__.py": "", "method.py": method, "helper.py": "x = 1", "other.py": "y = 1"}
    installed({f"plugin_of_two/{name}": text for name, text in files.items()})
    module = __import__("plugin_of_two.method").method
    before = outside(module)
    path = tmp_path / edited
    path.write_text(path.read_text() + "\nADDED = 1\n")
    assert (outside(module) == before) == edited.endswith("other.py")
    assert source_of(module.Outside()).endswith(f"-{outside(module)}")


def test_a_method_of_a_single_file_is_part_of_the_key(installed, tmp_path):
    installed({"plugin_of_one.py": METHOD.format(helper="")})
    module = __import__("plugin_of_one")
    before = outside(module)
    (tmp_path / "plugin_of_one.py").write_text(METHOD.format(helper="x = 1"))
    assert outside(module) != before and source_of(module.Outside()) != source_of(FineTune())


def test_a_subclass_of_a_method_runs_that_one_too():
    @dataclass(frozen=True)
    class Mine(SFRon):
        pass

    assert modules_run(Mine) == modules_run(SFRon)
