"""kill -9 in every phase of a run: the same command started again ends in the bytes of a run that was not killed."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment, tiny_sd

pytestmark = pytest.mark.xdist_group("kills")
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


class Worker:
    """Runs that may be killed, in a process that imports once."""

    def __init__(self, **environment: str):
        self.environment = environment

    def __enter__(self) -> "Worker":
        command = [sys.executable, str(Path(__file__).with_name("worker.py"))]
        env = environment(HF_HUB_OFFLINE="1", ACCELERATE_USE_CPU="true", **self.environment)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        return self

    def __exit__(self, *error) -> None:
        self.process.stdin.close()
        assert self.process.wait(60) == 0

    def __call__(self, run: str, folder: Path, **how) -> dict:
        self.process.stdin.write(json.dumps({"run": run, "folder": str(folder), **how}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def finish(self, run: str, folder: Path) -> dict:
        done = self(run, folder)
        assert done["status"] == 0, Path(f"{folder}.log").read_text()
        return done


@pytest.fixture(scope="module")
def worker():
    with Worker() as started:
        yield started


@pytest.fixture(scope="module")
def whole(worker, tmp_path_factory) -> tuple[bytes, dict]:
    """(weights, events) of a tiny run that nothing stops."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    done = worker.finish("tiny", folder)
    return (folder / WEIGHTS).read_bytes(), done["events"]


@pytest.mark.parametrize(("phase", "number"), [("fisher", 3), ("step", 7), ("save", 31), ("save", 66)])
def test_killed_and_resumed_ends_in_the_same_bytes(worker, whole, tmp_path, phase, number):
    """In the Fisher, in a step after a checkpoint, half through the second optimizer.pt, amid the export's renames."""
    weights, events = whole
    assert number <= events[phase], events
    killed = worker("tiny", tmp_path / "out", kill=[phase, number])
    assert killed["status"] == signal.SIGKILL
    assert not (tmp_path / "out" / WEIGHTS).exists()
    worker.finish("tiny", tmp_path / "out")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == weights


@pytest.mark.parametrize("number", [2, 13])
def test_killed_while_it_learns_and_resumed_ends_in_the_same_bytes(worker, tmp_path, number):
    """Before the first checkpoint and after it: in the forget step of step 1, in the learn step of step 4."""
    whole = worker.finish("clu", tmp_path / "whole")
    assert whole["events"]["step"] == 20  # learn, forget and two retain steps, five times
    assert worker("clu", tmp_path / "out", kill=["step", number])["status"] == signal.SIGKILL
    worker.finish("clu", tmp_path / "out")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_another_process_writes_the_same_bytes(whole, tmp_path):
    """Sets and dicts of strings in another order: checkpoints too, but for the time and the paths that they note."""
    with Worker(PYTHONHASHSEED="7") as other:
        other.finish("tiny", tmp_path / "out")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == whole[0]


@pytest.mark.long
def test_twenty_kills_of_the_text_to_image_script(worker, tmp_path):
    """Synthesis, Fisher, steps, evaluations, saves, records, twice each and more, then moments of CPU time."""
    tiny_sd().save_pretrained(tmp_path / "model")
    whole = worker.finish("sd", tmp_path / "whole")
    weights = (tmp_path / "whole" / WEIGHTS).read_bytes()
    draw = random.Random(0)
    phases = ["draw", "fisher", "step", "save", "evaluate", "record"]
    assert set(whole["events"]) == set(phases)
    kills = [{"kill": [phase, draw.randint(1, whole["events"][phase])]} for phase in [*phases * 2, "save", "save"]]
    kills += [{"cpu": draw.uniform(0.05, 0.8) * whole["cpu"]} for _ in range(6)]
    same = 0
    for number, kill in enumerate(kills):
        folder = tmp_path / str(number)
        assert worker("sd", folder, **kill)["status"] == signal.SIGKILL, kill
        worker.finish("sd", folder)
        assert not list(folder.rglob("*.partial")), kill
        same += (folder / WEIGHTS).read_bytes() == weights
        print(kill, same)
    assert (same, len(kills)) == (20, 20)
