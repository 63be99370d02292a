"""Rooms: what may import what, without a circle of rooms or of files."""

import ast
from pathlib import Path

import pytest

import hf_unlearn

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
    "report",
    "compare",
    "cli",
)
ROOT_FILES = {"__init__.py", "__main__.py", "py.typed"}
LEVEL = {room: level for level, room in enumerate(ROOMS)}
FILES = {path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = {name.removesuffix(".__init__"): path for path, name in FILES.items()}


def resolved(module: str, names: list[str]) -> set[str]:
    """The files of the package that `from module import names` reads; `module` is relative to the package."""
    found = set()
    for name in names:
        full = f"{module}.{name}".strip(".")
        if full in MODULES:
            found.add(full)
        elif module:
            found.add(module)
        else:
            homes = [home for home, exported in hf_unlearn._EXPORTS.items() if name in exported]
            found.update(homes)
    return found


def imported(own: str, source: str, is_package: bool = False) -> set[str]:
    """Modules of the package that a file imports, for type checkers only too. `own` is its dotted name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if node.level:
                parts = own.split(".") if is_package else own.split(".")[:-1]
                parts = parts[: len(parts) - (node.level - 1)]
                found |= resolved(".".join([*parts, *(node.module.split(".") if node.module else [])]), names)
            elif node.module and node.module.split(".")[0] == "hf_unlearn":
                found |= resolved(node.module.removeprefix("hf_unlearn").lstrip("."), names)
        elif isinstance(node, ast.Import):
            whole = [alias.name.removeprefix("hf_unlearn.") for alias in node.names]
            found |= {name for name in whole if name in MODULES}
    return found - {own}


def upward(own: str, source: str) -> set[str]:
    """What a file imports from rooms above its own."""
    level = LEVEL[own.split(".")[0]]
    return {name for name in imported(own, source) if LEVEL[name.split(".")[0]] > level}


def graph() -> dict[str, set[str]]:
    edges = {}
    for path, name in FILES.items():
        package = path.name == "__init__.py"
        own = name.removesuffix(".__init__") if package else name
        edges[own] = imported(own, path.read_text(), package)
    return edges


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
    seen = 0
    for path, own in FILES.items():
        if path.parent == PACKAGE:
            continue
        package = path.name == "__init__.py"
        own = own.removesuffix(".__init__")
        found = imported(own, path.read_text(), package)
        seen += len(found)
        above = {name for name in found if LEVEL[name.split(".")[0]] > LEVEL[own.split(".")[0]]}
        assert not above, f"{own} imports what lies above it: {sorted(above)}"
    assert seen > 200


def test_no_circle_of_files():
    edges = {own: found for own, found in graph().items() if own not in ("__init__", "", "__main__")}
    assert circle(edges) == []


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
    assert upward(own, source) == found


def test_circles_are_seen():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_nothing_needs_torchvision():
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE.parents[1] / "scripts").glob("*.py")]:
        assert "torchvision" not in path.read_text()


def test_files_stay_small():
    long = {name: lines for path, name in FILES.items() if (lines := len(path.read_text().splitlines())) > 300}
    assert not long
    for path in (PACKAGE / "methods").glob("*.py"):
        if path.name not in ("sfron.py", "base.py"):
            assert len(path.read_text().splitlines()) <= 80, path.name
