"""Nothing in the package writes a file under its final name: all go through `files`."""

import ast
from pathlib import Path

import pytest

import hf_unlearn

PACKAGE = Path(hf_unlearn.__file__).parent
WRITERS = {"write_text", "write_bytes", "save_file", "savefig", "imsave", "dump"}


def bare_writes(source: str) -> list[int]:
    """Lines of calls that write a file outside a `with atomic(...)`."""
    tree, found = ast.parse(source), []

    def walk(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.With):
            calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
            inside = inside or any(getattr(c.func, "id", "") in ("atomic", "atomic_folder") for c in calls)
        if isinstance(node, ast.Call) and not inside:
            attribute = isinstance(node.func, ast.Attribute)
            name = node.func.attr if attribute else getattr(node.func, "id", "")
            opened = name == "open" and any("w" in str(getattr(a, "value", "")) for a in node.args[1:2])
            # `write_text` as a plain name is the one of `files`; a method of that name is pathlib's.
            if opened or (name in WRITERS and (attribute or name != "write_text")):
                found.append(node.lineno)
        for child in ast.iter_child_nodes(node):
            walk(child, inside)

    walk(tree, False)
    return found


def test_every_file_is_written_beside_its_name():
    writes = {path.name: bare_writes(path.read_text()) for path in PACKAGE.rglob("*.py")}
    assert {name: lines for name, lines in writes.items() if lines} == {} and len(writes) > 90


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("path.write_text('a')", [1]),
        ("write_text(path, 'a')", []),
        ("with open(path, 'w') as file:\n    file.write('a')", [1]),
        ("open(path, 'rb')", []),
        ("with atomic(path) as partial:\n    save_file(tensors, partial)", []),
        ("with atomic(path) as partial, open(partial, 'w') as file:\n    json.dump(a, file)", []),
        ("def f():\n    figure.savefig(path)", [2]),
    ],
)
def test_bare_writes_are_seen(source, found):
    assert bare_writes(source) == found
