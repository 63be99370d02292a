"""Imports inside the package go down only."""

import ast
from pathlib import Path

import hf_unlearn

PACKAGE = Path(hf_unlearn.__file__).parent
LAYERS = [
    {"losses", "pipelines"},
    {"objectives", "optim"},
    {"images"},
    {"data"},
    {"saliency"},
    {"methods"},
    {"storage", "config", "scoring"},
    {"callbacks"},
    {"trainer", "arguments"},
    {"evaluation", "hub"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported(path: Path) -> set[str]:
    """Top-level modules of the package that `path` imports, those only for type checkers left out."""
    tree = ast.parse(path.read_text())
    skipped = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    depth = len(path.relative_to(PACKAGE).parts)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == depth and node not in skipped:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").startswith("hf_unlearn."):
            found.add(node.module.split(".")[1])
    return found


def test_no_upward_import():
    seen = 0
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        assert own in LEVEL, f"{own} has no place in LAYERS"
        for name in imported(path) - {"__version__"}:
            seen += 1
            assert LEVEL[name] <= LEVEL[own], f"{path.name} imports {name}, which lies above it"
    assert seen > 20


def test_nothing_needs_torchvision():
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE.parents[1] / "scripts").glob("*.py")]:
        assert "torchvision" not in path.read_text()


def test_files_stay_small():
    assert max(len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")) < 420
    for path in (PACKAGE / "methods").glob("*.py"):
        if path.name not in ("sfron.py", "base.py"):
            assert len(path.read_text().splitlines()) <= 80, path.name
