"""The stages of the GPU run, in the order of their worth, each within what is left of the time and the memory."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from speed.gpu_cases import FIRST, FISHERS, LAST, Case, emptied, fisher_pass, measured, needed_bytes

from hf_unlearn.evaluation.emoji import EMOJI_SD
from hf_unlearn.evaluation.tables import stamp
from hf_unlearn.report.outcome import outcome
from hf_unlearn.report.reading import read_record
from hf_unlearn.report.verdict import verdict

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft")
EARLY = 5  # cases before the first Fisher pass
# A concept, its neighbour, and how the shipped model draws: the command of docs/quickstart.md, with attacks.
EMOJI = ("--concept", "a rocket", "--anchor_concept", "a sailboat", "--guidance_scale", "3", "--train_method", "full")
QUICK = (
    *("--num_forget_images", "8", "--num_retain_images", "4", "--max_train_steps", "1"),
    *("--train_batch_size", "2", "--eval_profile", "quick"),
)
TESTS, RESULT = "tests that need a GPU", "the emoji model forgets a rocket, all weights"


@dataclass(frozen=True)
class Stage:
    """name: as in the JSON. seconds: what it takes at least. run: `left`, the seconds until the end -> figures.
    needs: bytes of memory, without activations."""

    name: str
    seconds: float
    run: Callable[[float], dict[str, Any]]
    needs: Callable[[], int] = lambda: 0


class Skipped(Exception):
    """A stage that cannot be done here; the message says why."""


def stages(device: str, tiny: bool) -> list[Stage]:
    """All stages, the most telling first."""

    def case_stage(case: Case) -> Stage:
        def needs() -> int:
            return needed_bytes(case, tiny)

        return Stage(case.name, case.seconds, lambda left: measured(case, device, tiny), needs)

    def fisher_stage(size: str, seconds: float) -> Stage:
        return Stage(f"Fisher pass, {size}", seconds, lambda left: fisher_pass(size, device, tiny))

    first, last = ([case_stage(case) for case in cases] for cases in (FIRST, LAST))
    fishers = [fisher_stage(*one) for one in FISHERS]
    ends = [Stage(TESTS, 20, gpu_tests), Stage(RESULT, 60, lambda left: emoji_result(left, device, tiny))]
    return [*first[:EARLY], fishers[0], *first[EARLY:], *ends, fishers[1], *last]


def run(options: Any, started: float) -> None:
    """Do the stages that fit, and write each to `options.output` as soon as it is done."""
    about = {"stamp": stamp(*PACKAGES), "device": device_of(options.device), "tiny": options.tiny}
    kept: dict[str, Any] = {**about, "budget": options.budget, "stages": {}}
    if options.resume and options.output.exists():
        earlier = json.loads(options.output.read_text())
        other = next((key for key, value in about.items() if key != "stamp" and earlier.get(key) != value), None)
        if other is not None:
            sys.exit(f"{options.output} has figures of {other} {earlier.get(other)}: do without --resume")
        kept["stages"] = earlier["stages"]
    for stage in stages(options.device, options.tiny):
        if options.only is not None and not any(word in stage.name for word in options.only):
            continue
        if "result" in kept["stages"].get(stage.name, ()):
            continue
        began = time.perf_counter()
        found = outcome_of(stage, options.budget - (began - started), options.device)
        kept["stages"][stage.name] = {**found, "seconds": time.perf_counter() - began}
        written(kept, options.output)
        said = found.get("skipped") or found.get("failed") or json.dumps(found["result"])
        print(f"{time.perf_counter() - started:4.0f} s  {stage.name}: {said}", flush=True)


def outcome_of(stage: Stage, left: float, device: str) -> dict[str, Any]:
    """{"result": figures}, {"skipped": why} or {"failed": why}."""
    if stage.seconds > left:
        return {"skipped": f"it needs about {stage.seconds:.0f} s, and {max(left, 0):.0f} s are left"}
    needs, free = stage.needs(), free_memory(device)
    if needs > free:
        return {"skipped": f"it needs over {needs / 2**30:.0f} GiB, and {free / 2**30:.0f} GiB are free"}
    try:
        with ended_after(left):
            return {"result": stage.run(left)}
    except Skipped as why:
        return {"skipped": str(why)}
    except TimeoutError:
        return {"skipped": f"it was stopped after {left:.0f} s, when the time was over"}
    except torch.OutOfMemoryError as error:
        return {"skipped": f"out of memory: {first_line(error)}"}
    except Exception as error:  # one that breaks must not cost the figures of the others: it is listed as broken
        return {"failed": f"{type(error).__name__}: {first_line(error)}"}
    finally:
        emptied()


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]


def free_memory(device: str) -> int:
    """Bytes that this process may take on the device."""
    from hf_unlearn.cli.estimates import free_bytes

    emptied()
    return free_bytes(device)


@contextmanager
def ended_after(seconds: float):
    """Raise TimeoutError inside once the time is over."""

    def over(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def written(kept: dict[str, Any], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".partial")
    partial.write_text(json.dumps(kept, indent=1) + "\n")
    partial.replace(output)


def device_of(device: str) -> str:
    """What was measured on, in words."""
    if device == "cpu":
        return "the host, as a test"
    about = torch.cuda.get_device_properties(0)
    return f"{about.name}, {about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


# ---- programs of their own -----------------------------------------------------------------------
def environment() -> dict[str, str]:
    places = [str(ROOT / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}


def gpu_tests(left: float) -> dict[str, Any]:
    """The last line of pytest on the tests that are marked gpu."""
    if find_spec("pytest") is None:
        raise Skipped("pytest is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/test_gpu.py"]
    done = called(command, left)
    lines = done.stdout.strip().splitlines() or [first_line(Exception(done.stderr))]
    if done.returncode not in (0, 5):  # 5: none was chosen
        raise RuntimeError("; ".join([line for line in lines if line.startswith("FAILED")][:3]) or lines[-1])
    return {"said": lines[-1]}


def emoji_result(left: float, device: str, tiny: bool) -> dict[str, Any]:
    """The shipped model forgets a rocket by all weights and is attacked: what the record says of it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hf_unlearn", "t2i", "--pretrained_model_name_or_path", str(EMOJI_SD), *EMOJI]
        command += ["--output_dir", folder, "--num_inference_steps", "2" if tiny else "20"]
        command += QUICK if tiny else ("--attack", "quick")
        began = time.perf_counter()
        done = called(command, left, {"ACCELERATE_USE_CPU": "1"} if device == "cpu" else {})
        seconds = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
        record = read_record(folder)
        after = {name: metric.number for name, metric in record.figures["after"].items() if metric.number is not None}
    came_to = outcome(record)
    said = f"{came_to.state}: {came_to.evidence}."
    return {"seconds": seconds, "outcome": said, "verdict": verdict(record), "after": after}


def called(command: list[str], left: float, more: dict[str, str] | None = None) -> Any:
    """A program that is stopped when the time is over. Raises Skipped then."""
    try:
        env = {**environment(), **(more or {})}
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=max(left - 2, 1))
    except subprocess.TimeoutExpired:
        raise Skipped(f"it was stopped after {left:.0f} s, when the time was over") from None
