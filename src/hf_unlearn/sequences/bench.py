"""Strategies against each other on sequences of requests: cells that are computed once and kept."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..common.files import atomic, write_text
from ..common.keys import code_key, content_key
from ..common.untrusted import read_json
from ..compare.models import splits_of, start_of
from ..compare.recipe import Recipe
from ..evaluation.classification import Predictions, accuracy
from ..training.config import UnlearnConfig
from .counterfactual import SEEDS, divergences, restored, stored, without_forgotten
from .figures import Course
from .ledger import Entry, Ledger
from .memory import ReplayMemory
from .registry import STRATEGIES, strategy_of
from .requests import Part, Request, requests_of
from .runner import Sequence
from .setup import memory_variants
from .tasks import Tasks

CLPU = "0R 1T 2T 3R 1R 2F 4T 4F"  # the sequence of its released code (arXiv 2203.12817)
SCENARIOS = ("tasks", "classes", "samples")
DECIDES = ("sequences.turns", "sequences.queue", "sequences.measuring")  # what every strategy runs


@dataclass(frozen=True)
class Cell:
    """One run: what a strategy makes of one sequence of requests.

    data: "digits", or a folder of images with a train and a test part.
    model: a name of `CLASSIFIERS`.
    scenario: one of SCENARIOS.
    method: name of a strategy.
    memory: samples of the replay memory.
    by: how it chooses them.
    steps, batch: outer steps of each stage and samples in a batch.
    variants: the generator that draws variants of the memory's samples; "" for none.
    image_column: of the folder's parquet files.
    extend: times `steps` that a stage which finds its strength may take.
    """

    data: str
    model: str
    scenario: str
    method: str
    memory: int
    seed: int
    by: str = "reservoir"
    steps: int = 80
    batch: int = 32
    variants: str = ""
    image_column: str = "image"
    extend: int = 1

    @property
    def spec(self) -> dict[str, Any]:
        """What its numbers depend on, as JSON."""
        without = {"variants": "", "image_column": "image", "extend": 1}  # said only where they are something else
        return {name: value for name, value in asdict(self).items() if without.get(name) != value}

    @property
    def label(self) -> str:
        """The name of its row."""
        return self.method + " + variants" * bool(self.variants) + " extended" * (self.extend > 1)

    @property
    def group(self) -> tuple[str, str, str, int, str]:
        """What cells of several seeds share."""
        return self.data, self.model, self.scenario, self.memory, self.label


@cache
def tasks_of(data: str, model: str, image_column: str = "image") -> Tasks:
    """Ten classes in five tasks of two, split as a comparison of the same data is."""
    recipe = Recipe("sequences", data, model, {"fraction": 0.1}, [], [0], image_column=image_column)
    parts = splits_of(recipe)[0]
    return Tasks(parts["train"], parts["test"], [[2 * i, 2 * i + 1] for i in range(5)], parts["validation"])


def scenario(name: str, tasks: Tasks, seed: int) -> list[Request]:
    """The requests of a scenario.

    "tasks" is the sequence of CLPU. "classes" forgets classes of two tasks at a time, "samples" a tenth of all
    samples of the tasks learnt so far, drawn by the seed; tasks go on being learnt in between.
    """
    if name == "tasks":
        return requests_of(CLPU)
    if name == "classes":
        gone = [{"forget": {"classes": [1, 4]}}, {"forget": {"classes": [2, 7]}}]
        return requests_of(["0R", "1R", "2R", gone[0], "3R", gone[1], "4R"])
    if name != "samples":
        raise ValueError(f"scenario {name!r} is not one of {', '.join(SCENARIOS)}")
    asked: list[Any] = ["0R", "1R", "2R", None, "3R", None, "4R"]
    generator, left = torch.Generator().manual_seed(seed), list[int]()
    for i, each in enumerate(asked):
        if each is not None:
            left = sorted({*left, *tasks.of_classes(tasks.classes[int(each[0])])})
            continue
        drawn = torch.randperm(len(left), generator=generator)[: len(left) // 10].tolist()
        asked[i] = Request(forget=Part(samples=tuple(left[k] for k in drawn)))
        left = [position for k, position in enumerate(left) if k not in set(drawn)]
    return requests_of(asked)


def cells(
    data: str,
    places: Iterable[tuple[int, str, str, int, str]],
    by: str,
    steps: int,
    batch: int,
    variants: str = "",
    image_column: str = "image",
    extend: int = 1,
) -> list[Cell]:
    """The cells at (seed, model, scenario, memory, method), but for what a strategy cannot do."""
    found = []
    for seed, model, name, memory, method in places:
        if method == "clpu" and name != "tasks":  # it forgets whole tasks alone
            continue
        found.append(Cell(data, model, name, method, memory, seed, by, steps, batch, variants, image_column, extend))
    return found


class Bench:
    """Computes cells and keeps them in `folder`. A run that is killed goes on where it was, inside a cell too."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        for name in ("cells", "runs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def result(self, cell: Cell) -> dict[str, Any]:
        """The ledger of a cell, and the divergences of each of its forget requests, by number."""
        path = self.folder / "cells" / f"{self._key(cell.spec, cell)}.json"
        if path.exists():
            return read_json(path)
        tasks = tasks_of(cell.data, cell.model, cell.image_column)
        asked = scenario(cell.scenario, tasks, cell.seed)
        made, folder = self._run(cell, asked, cell.seed)
        found: dict[str, Any] = {}
        for number in self._forgets(made.ledger):
            ours = self._outputs(folder, number)
            at_once = STRATEGIES[cell.method].reads_everything
            history = without_forgotten(tasks, asked, number, at_once)
            gone = made.queue.forgotten(made.ledger.entries[:number])[number]
            others = [self._counterfactual(cell, history, cell.seed + more, gone) for more in SEEDS]
            accuracies = [accuracy(other).number for other in others]
            found[str(number)] = {**divergences(ours, others), "counterfactual_FA": sum(accuracies) / len(accuracies)}
        kept = self._kept(made)
        result = {"cell": cell.spec, "ledger": asdict(made.ledger), "divergences": found, "kept": kept}
        write_text(path, json.dumps(result))
        shutil.rmtree(folder)
        return read_json(path)

    def _key(self, spec: Any, cell: Cell) -> str:
        """Its name: `spec`, and the code that decides its numbers. Another strategy's is not among it."""
        modules = [STRATEGIES[cell.method].__module__.partition(".")[2]]
        modules += ["sequences.variants"] if cell.variants else []
        return content_key([spec, code_key(*DECIDES, *modules)], digits=20)

    def _run(self, cell: Cell, asked: list[Request], seed: int) -> tuple[Sequence, Path]:
        """Carry out requests, and keep what the model says of each thing right after it was forgotten."""
        spec = {**cell.spec, "seed": seed, "asked": [request.as_dict() for request in asked]}
        folder = self.folder / "runs" / self._key(spec, cell)

        def audit(entry: Entry, predict: Any, turn: Any) -> dict[str, Any]:
            if turn.forget is not None:
                with atomic(folder / f"outputs-{entry.number:04d}.safetensors") as partial:
                    save_file(stored(predict(turn.forget)), partial)
            return {}

        config = UnlearnConfig.quiet(
            output_dir=str(folder),
            max_steps=cell.steps,
            extend_to=cell.extend * cell.steps,
            per_device_train_batch_size=cell.batch,
            per_device_eval_batch_size=256,
            seed=seed,
        )
        memory = ReplayMemory(cell.memory, by=cell.by, seed=seed)  # type: ignore[arg-type]
        tasks = tasks_of(cell.data, cell.model, cell.image_column)
        variants = memory_variants({"generator": cell.variants} if cell.variants else {})
        start, strategy = start_of(cell.model, seed), strategy_of(cell.method)
        made = Sequence(start, config, tasks, memory, strategy, audit=audit, variants=variants)
        made.run(asked)
        return made, folder

    def _outputs(self, folder: Path, number: int) -> Predictions:
        return restored(load_file(folder / f"outputs-{number:04d}.safetensors"))

    def _counterfactual(self, cell: Cell, asked: list[Request], seed: int, gone: Iterable[int]) -> Predictions:
        """What a model says of the samples `gone` that never met them."""
        made, _ = self._run(cell, asked, seed)
        data = made.tasks.samples(gone)
        assert data is not None
        return made.predict(data)

    def _kept(self, made: Sequence) -> float:
        """Samples in the memory over those that are known, a mean over requests."""
        entries = made.ledger.done
        known = [len(made.queue.standing(entries[: entry.number]).known) for entry in entries]
        shares = [entry.figures["kept_samples"] / count for entry, count in zip(entries, known) if count]
        return sum(shares) / len(shares)

    def _forgets(self, ledger: Ledger) -> list[int]:
        return [entry.number for entry in ledger.done if entry.asked.to_forget is not None]


def figures_of(result: dict[str, Any]) -> dict[str, float | None]:
    """All metrics of a cell: those of its course, and the means of its divergences."""
    from ..report.reading import from_json

    course = Course.of(from_json(Ledger, result["ledger"], ""))
    found = {**course.figures(), "kept": result["kept"]}
    for name in ("counterfactual_FA", "AGJS", "IGJS"):
        values = [row[name] for row in result["divergences"].values()]
        found[name] = sum(values) / len(values) if values else None
    return {**found, "cpu": course.cpu}
