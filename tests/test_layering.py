"""Rooms: what may import what, without a circle of rooms or of files."""

import ast
from pathlib import Path

import pytest

import hf_unlearn
from hf_unlearn.common.imports import Sources

PACKAGE = Path(hf_unlearn.__file__).parent
# From the ground up. A room imports from itself and from rooms before it.
ROOMS = (
    "common",
    "data",
    "hub",
    "families",
    "saliency",
    "methods",
    "saving",
    "training",
    "evaluation",
    "augmentation",
    "attacks",
    "report",
    "compare",
    "sequences",
    "cli",
)
ROOT_FILES = {"__init__.py", "__main__.py", "py.typed"}
LEVEL = {room: level for level, room in enumerate(ROOMS)}
SOURCES = Sources(PACKAGE, "hf_unlearn")
EDGES = {own: SOURCES.modules_imported(own) for own in SOURCES.paths}
INSIDE = {own: found for own, found in EDGES.items() if own not in ("", "__main__")}  # in a room


def upward(own: str, found: set[str]) -> set[str]:
    """Those of the modules `found` that lie in rooms above that of `own`."""
    return {name for name in found if LEVEL[name.split(".")[0]] > LEVEL[own.split(".")[0]]}


def circle(edges: dict[str, set[str]]) -> list[str]:
    """The nodes of a circle, or none."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for other in sorted(edges.get(node, ())):
            found = walk(other, [*path, node])
            if found:
                return found
        done.add(node)
        return []

    return next((found for node in sorted(edges) if (found := walk(node, []))), [])


def test_the_root_holds_three_files_and_rooms():
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert {path.name for path in entries if path.is_file()} == ROOT_FILES
    assert {path.name for path in entries if path.is_dir()} == {*ROOMS, "assets"}


def test_rooms_import_downwards_only():
    for own, found in INSIDE.items():
        assert not upward(own, found), f"{own} imports what lies above it: {sorted(upward(own, found))}"
    assert sum(map(len, INSIDE.values())) > 200


def test_no_circle_of_files():
    assert circle(INSIDE) == []


@pytest.mark.parametrize(
    ("own", "source", "found"),
    [
        ("common.losses", "from ..training.trainer import UnlearnTrainer", {"training.trainer"}),
        ("methods.esd", "def f():\n    from ..training.trainer import UnlearnTrainer", {"training.trainer"}),
        ("saliency.masks", "from .. import methods", {"methods"}),
        ("common.losses", "import hf_unlearn.training.optim", {"training.optim"}),
        ("training.config", "from hf_unlearn import UnlearnTrainer, Masks", set()),
        ("families.load", "from hf_unlearn import UnlearnTrainer", {"training.trainer"}),
        ("training.config", "from hf_unlearn.cli.finish import push", {"cli.finish"}),
        ("methods.esd", "from .base import Method\nfrom ..common.losses import spread\nimport torch", set()),
        ("methods.esd", "if TYPE_CHECKING:\n    from ..training.trainer import UnlearnTrainer", {"training.trainer"}),
    ],
)
def test_upward_imports_are_seen(own, source, found):
    imported = {module for module, _ in SOURCES.imports_of(own, ast.parse(source))}
    assert upward(own, imported) == found


def test_circles_are_seen():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_nothing_needs_torchvision():
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE.parents[1] / "scripts").glob("*.py")]:
        assert "torchvision" not in path.read_text()


def test_files_stay_small():
    lines = {own: len(path.read_text().splitlines()) for own, path in SOURCES.paths.items()}
    long = {own: count for own, count in lines.items() if count > 300}
    assert not long
    for path in (PACKAGE / "methods").glob("*.py"):
        if path.name not in ("sfron.py", "clu.py", "base.py", "seen.py"):
            assert len(path.read_text().splitlines()) <= 80, path.name
