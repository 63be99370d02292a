"""A stream of two tasks of two classes for a tiny ViT, made from a seed; and the process that runs it and may die.

python stream.py FOLDER [NUMBER STEP]    dies by SIGKILL in outer step STEP of request NUMBER
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from conftest import config, environment, tiny_vit

from hf_unlearn import SFRon
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.sequences import ReplayMemory, Sequence, Tasks
from hf_unlearn.sequences.strategies import Unlearning
from hf_unlearn.training.trainer import UnlearnTrainer

REQUESTS = "0R 1T 1F"


def images(of_each: int, seed: int) -> ArrayDataset:
    """`of_each` images of each of four classes: a pattern for each class, and noise."""
    patterns = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(7)) * 2 - 1
    labels = torch.arange(4 * of_each) % 4
    noise = torch.randn(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 0.2
    return ArrayDataset((patterns[labels] + noise).clamp(-1, 1), labels)


def tasks() -> Tasks:
    return Tasks(images(8, 1), images(6, 2), [[0, 1], [2, 3]], images(4, 3))


def sequence(folder: Any, strategy: Any = None, memory: ReplayMemory | None = None, **values: Any) -> Sequence:
    saves = dict(save_strategy="steps", save_steps=2, save_total_limit=1, logging_strategy="no")
    made = config(folder, **{**saves, "learning_rate": None, "max_steps": 6, **values})
    strategy = strategy or Unlearning(method=SFRon(fisher_samples=4), learn_rate=2e-3)
    return Sequence(tiny_vit(), made, tasks(), ReplayMemory(12) if memory is None else memory, strategy)


def die_in(number: str = "", at: str = "") -> None:
    """Have this process die by SIGKILL in outer step `at` of request `number`; without them it lives."""
    stock = UnlearnTrainer.training_step

    def step(self, *args, **kwargs):
        if number and f"request-{int(number):04d}" in self.args.output_dir and self.state.global_step == int(at):
            os.kill(os.getpid(), signal.SIGKILL)
        return stock(self, *args, **kwargs)

    UnlearnTrainer.training_step = step


def files(folder: Path) -> dict[str, bytes]:
    """What a run leaves, by name, but for the ledger and the model's card, which say when."""
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: content for name, content in found.items() if not name.startswith(("ledger.", "model/README"))}


def launched(script: str, *words: object, processes: int = 0) -> int:
    """Run a script beside this one, in so many processes, and return its exit status."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes else []
    command = [sys.executable, *launch, str(Path(__file__).with_name(script)), *map(str, words)]
    env = environment(HF_HUB_OFFLINE="1", ACCELERATE_USE_CPU="true")
    env["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
    return subprocess.run(command, env=env, capture_output=True).returncode


def steady() -> dict[str, Any]:
    """Arguments by which one process and two take the same batches of four; none outside of a launch."""
    processes = int(os.environ.get("WORLD_SIZE", 0))
    if not processes:
        return {}
    # A larger epsilon keeps Adam from making steps of rounding errors.
    return dict(adam_epsilon=1e-4, per_device_train_batch_size=4 // processes)


def main() -> None:
    torch.set_num_threads(1)
    folder, *kill = sys.argv[1:]
    made = sequence(folder, **steady())
    die_in(*kill)
    made.run(REQUESTS)


if __name__ == "__main__":
    main()
