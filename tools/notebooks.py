"""Execute a notebook without Jupyter, and store what its cells show.

    python tools/notebooks.py notebooks/digits.ipynb

Cells are Python, lines that begin with `!` are shell commands in which {NAME} is a variable, and lines that begin with
`%` are left out: they install what is there. What is stored is what Jupyter would show, but for progress bars and
warnings (the standard error of the cells).
"""

import argparse
import ast
import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1] / "src"


def shell(line: str, names: dict[str, Any]) -> None:
    """Run one command and print its output, without the place of this checkout. Raise RuntimeError if it fails."""
    filled = re.sub(r"\{(\w+)\}", lambda match: str(names[match[1]]), line)
    here = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        filled, shell=True, capture_output=True, text=True, env={**os.environ, "PATH": here, "MPLBACKEND": "agg"}
    )
    print(done.stdout.replace(str(SOURCE), "site-packages"), end="")
    if done.returncode:
        raise RuntimeError(f"{filled}\n{done.stderr[-3000:]}")


def run_cell(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Run one cell in `names`. Return its outputs as a notebook has them."""
    lines = [f"_shell({line[1:]!r}, globals())" if line.startswith("!") else line for line in joined(source)]
    tree = ast.parse("\n".join(line for line in lines if not line.startswith("%")))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    names["_shell"] = shell
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"name": "stdout", "output_type": "stream", "text": text})
    if value is not None:
        data: dict[str, Any] = {"text/plain": [repr(value) if not hasattr(value, "_repr_png_") else "<picture>"]}
        if hasattr(value, "_repr_png_"):
            data["image/png"] = base64.b64encode(value._repr_png_()).decode()
        outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
    return outputs


def joined(source: str) -> list[str]:
    """Lines, those of a shell command that end in a backslash put together."""
    found: list[str] = []
    for line in source.splitlines():
        if found and found[-1].startswith("!") and found[-1].endswith("\\"):
            found[-1] = f"{found[-1][:-1].rstrip()} {line.strip()}"
        else:
            found.append(line)
    return found


def execute(notebook: dict[str, Any], folder: Path | None = None) -> None:
    """Give the cells of a notebook new outputs.

    Args:
        folder: where its cells work, and what a command has done is not done again; by default a temporary folder.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    count, before = 0, os.getcwd()
    with tempfile.TemporaryDirectory() as own:
        os.chdir(folder or own)
        try:
            for cell in notebook["cells"]:
                if cell["cell_type"] == "code":
                    count += 1
                    cell["execution_count"] = count
                    cell["outputs"] = run_cell("".join(cell["source"]), names)
        finally:
            os.chdir(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--output", type=Path, help="Where to write it; the default is in its place.")
    parser.add_argument("--folder", type=Path, help="Where its cells work; the default is a temporary folder.")
    options = parser.parse_args()
    target = (options.output or options.notebook).absolute()
    notebook = json.loads(options.notebook.read_text())
    try:
        execute(notebook, options.folder)
    finally:  # what cells showed before one failed is kept
        target.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
