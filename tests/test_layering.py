"""Imports inside the package go down only."""

import ast
from pathlib import Path

import pytest

import hf_unlearn

PACKAGE = Path(hf_unlearn.__file__).parent
LAYERS = [
    {"files", "limits", "untrusted"},
    {"losses", "pipelines", "concepts", "stages", "errors", "terminal", "contents", "upload", "layers", "origin"},
    {"sharding", "offload"},
    {"checkpoints", "masks"},
    {"objectives", "optim"},
    {"images", "class_names", "sources", "emoji"},
    {"streams"},
    {"numerics", "data", "classifiers", "models", "classifier_data"},
    {"saliency"},
    {"methods", "lora"},
    {"adapters", "estimates"},
    {"storage", "config", "scoring", "sharded", "history"},
    {"callbacks", "guard", "loop", "latents"},
    {"saving"},
    {"trainer", "arguments", "synthesis"},
    {"recipes"},
    {"evaluation"},
    {"eval_results", "card_text"},
    {"cards"},
    {"hub", "side_by_side"},
    {"compare"},
    {"cli", "commands"},
    {"__main__"},
]
HOME = {name: module for module, names in hf_unlearn._EXPORTS.items() for name in names}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported(source: str, depth: int) -> set[str]:
    """Top-level modules of the package that a file `depth` folders deep imports, except for type checkers only."""
    tree = ast.parse(source)
    skipped = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == depth and node not in skipped:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            whole = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in whole:
            if name.startswith("hf_unlearn."):
                name = name.split(".")[1]
                found.add(HOME.get(name, name))
    return found


def upward(own: str, source: str, depth: int) -> set[str]:
    """What a file of module `own` imports although it lies above."""
    return {name for name in imported(source, depth) - {"__version__"} if LEVEL[name] > LEVEL[own]}


def test_no_upward_import():
    seen = 0
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        assert own in LEVEL, f"{own} has no place in LAYERS"
        source, depth = path.read_text(), len(path.relative_to(PACKAGE).parts)
        seen += len(imported(source, depth))
        assert not upward(own, source, depth), f"{path.name} imports what lies above it"
    assert seen > 20


@pytest.mark.parametrize(
    ("own", "source", "depth", "found"),
    [
        ("losses", "from .trainer import UnlearnTrainer", 1, {"trainer"}),
        ("methods", "def f():\n    from ..trainer import UnlearnTrainer", 2, {"trainer"}),
        ("saliency", "from . import methods, losses", 1, {"methods"}),
        ("losses", "import hf_unlearn.optim", 1, {"optim"}),
        ("config", "from hf_unlearn import UnlearnTrainer, Masks", 1, {"trainer"}),
        ("config", "from hf_unlearn.hub import push", 1, {"hub"}),
        ("methods", "from .base import Method\nfrom ..losses import spread\nimport torch", 2, set()),
        ("methods", "if TYPE_CHECKING:\n    from ..trainer import UnlearnTrainer", 2, set()),
    ],
)
def test_upward_imports_are_seen(own, source, depth, found):
    assert upward(own, source, depth) == found


def test_nothing_needs_torchvision():
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE.parents[1] / "scripts").glob("*.py")]:
        assert "torchvision" not in path.read_text()


def test_files_stay_small():
    assert max(len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")) < 420
    for path in (PACKAGE / "methods").glob("*.py"):
        if path.name not in ("sfron.py", "base.py"):
            assert len(path.read_text().splitlines()) <= 80, path.name
