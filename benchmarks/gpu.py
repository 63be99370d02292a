"""What unlearning costs on a GPU at the published sizes, and a real result: one command, offline, in nine minutes.

    make gpu                                        on a machine with CUDA; the same as the next line
    python benchmarks/gpu.py                        writes benchmarks/results/gpu.json and docs/gpu.md
    python benchmarks/gpu.py --budget 300           seconds in all; what does not fit is left out, by name
    python benchmarks/gpu.py --wheels FOLDER        takes packages that this Python lacks from wheels there, offline
    python benchmarks/gpu.py --resume               keeps what the JSON has, and measures the rest
    python benchmarks/gpu.py --device cpu --tiny    the same code on tiny networks: a test, no measurement
    python benchmarks/gpu.py --only                 only writes the page anew from the kept figures

Weights are random, of the published shapes: what a step costs does not depend on them. Every stage is written to the
JSON as soon as it is done; one that lacks time or memory is skipped with a line, one that breaks stops no other.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUDGET = 540.0  # seconds


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds in all")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, as a test")
    parser.add_argument("--only", nargs="*", help="stages whose name has one of these words; none: page only")
    parser.add_argument("--resume", action="store_true", help="keep the finished stages of the JSON")
    parser.add_argument("--wheels", type=Path, help="folder of wheels of what this Python lacks")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/gpu.json")
    parser.add_argument("--markdown", type=Path, default=ROOT / "docs/gpu.md")
    options = parser.parse_args(argv)
    started = time.perf_counter()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # with several, Trainer would split every batch
    if options.wheels is not None:
        unpacked(options.wheels)
    if options.only != []:
        check_machine(options.device, options.tiny)
        from gpu_run.stages import run

        run(options, started)
    from gpu_run.page import rendered

    kept = json.loads(options.output.read_text()) if options.output.exists() else None
    options.markdown.write_text(rendered(kept))


def unpacked(wheels: Path) -> None:
    """Install the wheels of a folder into a temporary one, of this process and those that it starts."""
    found = sorted(wheels.glob("*.whl"))
    if not found:
        sys.exit(f"{wheels} has no wheels (*.whl): name the folder that has them")
    target = tempfile.mkdtemp()
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target]
    subprocess.run([*command, *map(str, found)], check=True)
    sys.path.insert(0, target)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [target, os.environ.get("PYTHONPATH")]))


def check_machine(device: str, tiny: bool) -> None:
    """Exit with one line where this machine cannot run it."""
    try:
        import torch

        import hf_unlearn  # noqa: F401
    except ImportError as error:
        sys.exit(f"{error.name} is not installed: name a folder of wheels that has it with --wheels")
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit(
            "this needs a CUDA GPU, and torch finds none: run it where there is one (--device cpu --tiny is a test)"
        )
    if device == "cpu" and not tiny:
        sys.exit("--device cpu is a test on tiny networks: add --tiny")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "src"))
    main(sys.argv[1:])
