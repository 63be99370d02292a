"""`from hf_unlearn import ...`: lazy at run time, typed for checkers, listed by `dir`."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hf_unlearn

ROOT = Path(__file__).parents[1]


def typed_names() -> dict[str, str]:
    """{public name: module} of the imports under TYPE_CHECKING."""
    tree = ast.parse(Path(hf_unlearn.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names:
            assert alias.asname == alias.name  # how a checker tells a public name from a private import
            found[alias.name] = node.module
    return found


def test_the_imports_for_checkers_are_those_of_run_time():
    exports = {name: module for module, names in hf_unlearn._EXPORTS.items() for name in names}
    assert typed_names() == exports
    assert sorted(hf_unlearn.__all__) == sorted({"__version__", *exports})
    assert len(hf_unlearn.__all__) == len(set(hf_unlearn.__all__))


def test_every_public_name_is_there():
    for name in hf_unlearn.__all__:
        assert getattr(hf_unlearn, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Unlearner'"):
        hf_unlearn.Unlearner  # noqa: B018


def test_dir_lists_the_public_names():
    assert set(hf_unlearn.__all__) <= set(dir(hf_unlearn))


def test_the_package_alone_loads_no_library():
    code = "import sys, hf_unlearn; dir(hf_unlearn); print({'torch', 'transformers'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.long  # `make lint` checks the same in tests/typed_use.py
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_a_misspelt_argument_is_refused_by_mypy(tmp_path):
    example = tmp_path / "example.py"
    example.write_text(
        "from hf_unlearn import UnlearnConfig, digits, nothing\n"
        "UnlearnConfig(outputdir=1)\n"
        "UnlearnConfig(output_dir='a', target_forget='low')\n"
        "UnlearnConfig(output_dir='a', target_forget=0.1)\n"
        "digits(1)\n"
    )
    # The settings and the folder of `make lint`, whose cache makes this quick.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(example)],
        env={**os.environ, "MYPYPATH": "src"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if "example.py:" in line and ": error: " in line]
    found = [(int(line.split(":")[1]), line.split(": error: ")[1]) for line in lines]
    assert [number for number, _ in found] == [1, 2, 3, 5], done.stdout + done.stderr
    assert "nothing" in found[0][1] and "outputdir" in found[1][1] and "target_forget" in found[2][1]
