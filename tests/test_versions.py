"""Packages that are too old or missing are named as such, with the command that mends it; the files are not blamed."""

import ast
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import hf_unlearn
from hf_unlearn.cli import terminal
from hf_unlearn.common import versions
from hf_unlearn.common.untrusted import loading
from hf_unlearn.common.versions import VersionFault, version_fault

NEEDED = ["torch>=2.6", "diffusers>=0.37", "scikit-learn>=1.5; extra == 'eval'"]
OLD = "diffusers 0.36.0 is older than 0.37, which hf_unlearn needs: pip install -U diffusers"


@pytest.fixture
def installed(monkeypatch):
    """Set which versions are installed."""

    def of(**found: str) -> None:
        def version(name: str) -> str:
            if name not in found:
                raise PackageNotFoundError(name)
            return found[name]

        monkeypatch.setattr(versions, "version", version)
        about = type("About", (), {"get_all": lambda self, name, default: NEEDED})
        monkeypatch.setattr(versions, "metadata", lambda name: about())

    return of


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"torch": "2.6.0+cpu", "diffusers": "0.37.0"}, ""),
        ({"torch": "2.13.0", "diffusers": "0.42.1"}, ""),
        ({"torch": "2.6.0", "diffusers": "0.36.0"}, OLD),
        ({"torch": "2.6.0.dev1", "diffusers": "0.37.0"}, "torch 2.6.0.dev1 is older than 2.6, which"),
        ({"torch": "2.6.0"}, "diffusers is missing, which hf_unlearn needs: pip install -U diffusers"),
        ({"torch": "2.4.1", "diffusers": "0.36.0"}, "needs: pip install -U torch diffusers"),
    ],
)
def test_what_is_too_old_or_missing(installed, found, said):
    installed(**found)
    assert (said in version_fault()) if said else version_fault() == ""


def test_an_old_package_is_blamed_and_not_the_folder(installed):
    installed(torch="2.6.0", diffusers="0.36.0")
    with pytest.raises(VersionFault) as raised, loading("my-model"):
        raise AttributeError("module diffusers has no attribute X")
    assert str(raised.value) == f"my-model does not load: {OLD} (module diffusers has no attribute X)"


def test_an_import_that_fails_is_no_torn_folder(installed):
    installed(torch="2.6.0", diffusers="0.37.0")
    with pytest.raises(VersionFault, match="my-model does not load: a package is missing or of another version"):
        with loading("my-model"):
            raise ImportError("cannot import name 'FSDPModule'")
    with pytest.raises(ValueError, match="my-model does not load, is it whole"), loading("my-model"):
        raise KeyError("weights")


def test_commands_end_in_one_line(installed, monkeypatch, capsys):
    def broken() -> None:
        raise TypeError("create_optimizer() takes 1 positional argument")

    installed(torch="2.6.0", diffusers="0.36.0")
    with pytest.raises(SystemExit) as stop:
        terminal.run(broken)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and f"error: {OLD} (TypeError: create_optimizer()" in error and error.count("\n") == 1
    installed(torch="2.6.0", diffusers="0.37.0")
    with pytest.raises(TypeError):  # a fault of our own, whose traceback is wanted
        terminal.run(broken)


def test_public_names_say_why_they_do_not_import(installed, monkeypatch):
    installed(torch="2.6.0", diffusers="0.36.0")
    monkeypatch.setitem(sys.modules, "hf_unlearn.families.concepts", None)
    with pytest.raises(VersionFault, match=f"hf_unlearn.concept_of does not import: {OLD}"):
        hf_unlearn.concept_of  # noqa: B018


def test_fsdp_is_imported_where_it_is_used():
    """Other builds of torch may come without it."""
    for path in Path(hf_unlearn.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom):
                names = {node.module, *(alias.name for alias in node.names)}
                assert not any("fsdp2" in str(n) or str(n).startswith("torch.distributed.fsdp") for n in names), path
