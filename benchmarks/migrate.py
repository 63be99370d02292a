"""Rename kept cells whose key changed although their results did not, as after a field of a method was renamed.

    python benchmarks/migrate.py --old COMMIT      # the last commit whose keys the files in results/ have

A key ends in a digest of the row's method with all its options. This computes the digest of every row with the code of
COMMIT and with today's, and renames the cells. Use it only where the golden tests show that the results are the same;
otherwise leave the old cells, and the tables compute theirs again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

# benchmark -> arguments of its `key` around the row, which decide what stands before the digest only
BENCHMARKS = {
    "ddpm_forget": ((), (0, 0, 1)),
    "dit_forget": (("no-such-folder",), (0, 0, None, 1)),
    "emoji_forget": (("no-such-folder", ""), ("style", "noto", 0, None, 1)),
}


def digests() -> dict[str, dict[str, str]]:
    """The last part of the keys of every row, by benchmark."""
    found = {}
    for name, (before, after) in BENCHMARKS.items():
        script = import_module(name)
        every = [*script.VARIANTS, "before", "retrained"] if name == "ddpm_forget" else [*script.ROWS, "original"]
        found[name] = {row: script.key(*before, row, *after).rpartition("|")[2] for row in every}
    return found


def digests_of(commit: str) -> dict[str, dict[str, str]]:
    """`digests` with the code of another commit."""
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", commit, "src", "benchmarks"], cwd=root, stdout=subprocess.PIPE, check=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        environment = {**os.environ, "PYTHONPATH": str(Path(folder, "src"))}
        command = [sys.executable, "-c", Path(__file__).read_text(), "--print"]
        run = dict(cwd=Path(folder, "benchmarks"), env=environment, stdout=subprocess.PIPE, check=True)
        return json.loads(subprocess.run(command, **run).stdout)


def renamed(cells: dict, old: dict[str, str], new: dict[str, str]) -> dict:
    """The cells under today's keys. One that is there under both keys keeps today's content."""
    moved = {}
    for key, cell in cells.items():
        front, _, digest = key.rpartition("|")
        row = key.partition("|")[0]
        if old.get(row) == digest and row in new:
            moved.setdefault(f"{front}|{new[row]}", cell)
        else:
            moved[key] = cell
    return moved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--old", metavar="COMMIT", help="the commit whose keys the kept cells have")
    group.add_argument("--print", action="store_true", help="print the digests of this code as JSON")
    options = parser.parse_args()
    if options.print:
        print(json.dumps(digests()))
        return
    old, new = digests_of(options.old), digests()
    for name in BENCHMARKS:
        path = Path(__file__).with_name("results") / f"{name}.json"
        cells = json.loads(path.read_text())
        moved = renamed(cells, old[name], new[name])
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(moved, indent=1, sort_keys=True) + "\n")
        partial.replace(path)
        print(f"{name}: {len(moved.keys() - cells.keys())} of {len(cells)} cells renamed")


if __name__ == "__main__":
    main()
