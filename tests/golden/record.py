"""Writes golden.json: the figures of every case, with the package that is installed."""

import json
import sys
import traceback
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from golden.cases import figures, names, run  # noqa: E402

if __name__ == "__main__":
    found = {}
    for name in names():
        try:
            found[name] = figures(run(name))
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"}
            traceback.print_exc()
    (HERE / "golden.json").write_text(json.dumps(found, indent=0, sort_keys=True))
    print(len(found), "cases", [n for n, f in found.items() if "error" in f])
