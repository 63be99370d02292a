"""One request being carried out: its data, and training in stages that a killed run finds again."""

import copy
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch import nn

from ..common.files import write_text
from ..common.keys import content_key
from ..common.untrusted import read_json
from ..common.weights import load_weights, save_weights
from ..data.joining import Joined
from ..data.protocols import SizedDataset
from ..families import Objective
from ..families.load import objective_for
from ..methods import Method
from ..training.callbacks import Progress
from ..training.config import UnlearnConfig
from ..training.trainer import UnlearnTrainer
from .memory import ReplayMemory
from .tasks import Change

WEIGHTS, FACTS = "weights.safetensors", "stage.json"


@dataclass
class Turn:
    """What a strategy is given of one request.

    objective: around the model, which the strategy changes in place.
    config: arguments of the trainer; each stage has a seed and a folder of its own.
    folder: of the request.
    number: of the request, from 1.
    change: positions to learn and to forget.
    before, after: what is known before and after it.
    memory: the replay memory, which what is to be forgotten has left already.
    temporary: whether what is learnt is learnt for a time.
    variants: of what the memory holds of the rest, which stand beside it; refused: how many were not taken.
    others: further networks that the strategy keeps beside the model, by name.
    steps, seconds, cpu: outer steps, seconds by stage and CPU seconds so far.
    """

    objective: Objective
    config: UnlearnConfig
    folder: Path
    number: int
    change: Change
    before: Any  # a Standing
    after: Any
    memory: ReplayMemory
    temporary: bool = False
    others: dict[str, nn.Module] = field(default_factory=dict)
    variants: SizedDataset | None = None
    refused: int = 0
    steps: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    cpu: float = 0.0

    @property
    def learn(self) -> SizedDataset | None:
        """The samples to learn."""
        return self.before.tasks.samples(self.change.learn)

    @property
    def forget(self) -> SizedDataset | None:
        """The samples to forget."""
        return self.before.tasks.samples(self.change.forget)

    @property
    def remembered(self) -> SizedDataset | None:
        """What the memory holds of the rest, and variants of it if there are; None where it is empty."""
        kept = self.memory.dataset(without=self.change.learn)
        return kept if kept is None or self.variants is None else Joined(kept, self.variants)

    @property
    def everything(self) -> SizedDataset | None:
        """All samples that are known after the request: what only the reference may read."""
        return self.after.tasks.samples(self.after.known)

    @property
    def holdout(self) -> SizedDataset | None:
        """Held-out samples of the classes that are known after the request."""
        return self.after.tasks.holdouts(self.after.classes)

    @property
    def seed(self) -> int:
        """The seed of the request."""
        return int(content_key([self.config.seed, self.number], digits=7), 16)

    def train(
        self,
        stage: str,
        method: Method,
        forget: SizedDataset | None = None,
        retain: SizedDataset | None = None,
        learn: SizedDataset | None = None,
        network: nn.Module | None = None,
        rate: float | None = None,
        steps: int | None = None,
        holdout: SizedDataset | None = None,
    ) -> None:
        """Train with `method`, or load what an earlier run of this stage ended with.

        Args:
            stage: its name, one of a kind in the request.
            network: what is trained; the model itself by default.
            rate: the learning rate of a stage that learns. Without one the arguments say it, or the strength is found.
            steps: outer steps; those of the arguments by default.
            holdout: samples that nothing is trained on (`UnlearnTrainer`).
        """
        folder = self.folder / stage
        trained = self.objective if network is None else objective_for(network)
        if not (folder / FACTS).is_file():
            trainer = UnlearnTrainer(
                trained,
                self._arguments(folder, rate, steps),
                method,
                forget,
                retain,
                learn_dataset=learn,
                forgotten=f"request {self.number}",
                holdout_dataset=holdout,
                callbacks=[Progress(f"request {self.number}, {stage}")],
            )
            wall, cpu = time.perf_counter(), time.process_time()
            trainer.train(resume_from_checkpoint="auto" if trainer.args.save_strategy != "no" else None)
            facts = {
                "steps": trainer.outer_steps,
                "seconds": time.perf_counter() - wall,
                "cpu": time.process_time() - cpu,
            }
            everyone = PartialState()
            save_weights(trained.network, folder / WEIGHTS, everyone.is_main_process)
            if everyone.is_main_process:
                write_text(folder / FACTS, json.dumps(facts))
            everyone.wait_for_everyone()
        load_weights(trained.network, folder / WEIGHTS)
        facts = read_json(folder / FACTS)
        self.steps += facts["steps"]
        self.seconds[stage] = facts["seconds"]
        self.cpu += facts["cpu"]

    def _arguments(self, folder: Path, rate: float | None, steps: int | None) -> UnlearnConfig:
        args = copy.copy(self.config)
        args.output_dir, args.seed = str(folder), int(content_key([self.seed, folder.name], digits=7), 16)
        if steps is not None:
            args.max_steps = steps
        if rate is not None:  # what is new to the model has a large loss at first, and what it knows a small one
            args.learning_rate, args.find_strength, args.max_loss_ratio = rate, False, float("inf")
        folder.mkdir(parents=True, exist_ok=True)
        return args
