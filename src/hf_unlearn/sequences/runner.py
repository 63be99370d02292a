"""Requests, one after another, on one model: kept on disk so that a run that was killed goes on where it was."""

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..common.errors import redact
from ..common.files import write_text
from ..common.weights import model_digest
from ..data.fingerprint import whole_fingerprint
from ..data.protocols import SizedDataset
from ..evaluation.classification import Predictions
from ..families import Classification
from ..families.load import objective_for
from ..saving.export import forget_local_names
from ..saving.history import entry as history_entry
from ..saving.history import read_history, write_history
from ..training.config import UnlearnConfig
from .continual import ContinualUnlearning
from .ledger import Book, Entry, Ledger
from .measuring import Predict, class_features, measured
from .memory import ReplayMemory
from .queue import Queue, now
from .report import CARD_FILE, card
from .requests import Part, Request
from .store import OWN, Store, in_main, is_main
from .strategies import Strategy
from .tasks import Change, Standing, Tasks
from .turns import Turn

MODEL = "model"  # folder of the model as it is after the last request that is done
Audit = Callable[[Entry, Predict, Turn], dict[str, Any]]


class Sequence:
    """A model that is asked, again and again, to learn and to forget.

    All that a run needs to go on is in `config.output_dir`: the ledger, the weights and the replay memory after the
    last request that is done, and, inside a request, the checkpoints of its trainers where `save_strategy` asks for
    some. A run that is killed anywhere and called again ends in the same weights, memory and figures.

    Args:
        model: a transformers image classifier, or an Objective around one.
        config: arguments of every training; its seed decides everything. Without a learning rate, what forgets finds
            its strength.
        tasks: the data that requests speak of.
        memory: an empty `ReplayMemory`, of 200 samples by default.
        strategy: how requests are carried out; CLU by default.
        known: what the model knows already, to be remembered; None: nothing.
        audit: called after each request with the entry, what predicts, and the turn; what it returns is a figure too.

    Raises:
        ValueError: model, tasks and memory do not fit each other.
    """

    def __init__(
        self,
        model: Any,
        config: UnlearnConfig,
        tasks: Tasks,
        memory: ReplayMemory | None = None,
        strategy: Strategy | None = None,
        known: Part | None = None,
        audit: Audit | None = None,
    ):
        self.objective, self.config, self.tasks = objective_for(model), config, tasks
        self.memory = ReplayMemory() if memory is None else memory
        self.strategy, self.audit = strategy or ContinualUnlearning(), audit
        self.folder = Path(config.output_dir or "requests")
        self._check()
        self.first = Standing(tasks)
        if known is not None:
            self.first = self.first.after(Request(learn=known))
            self.memory.check(self.first.classes, tasks.train[0])
        self.history = read_history(self.objective.network)  # of the model as it was given
        self.others: dict[str, Any] = {}  # further networks that the strategy keeps
        self._given = deepcopy(self.objective.network.state_dict())
        self.setup = {
            "model": model_digest(self.objective.network),
            "data": whole_fingerprint(tasks.train),
            "tasks": [list(task) for task in tasks.classes],
            "known": None if known is None else known.as_dict(),
            "memory": self.memory.settings,
            "method": self.strategy.as_dict(),
            "seed": config.seed,
            "steps": config.max_steps,
            "batch_size": config.per_device_train_batch_size * config.world_size,
            "learning_rate": None if config.find_strength else config.learning_rate,
        }
        self.queue = Queue(Book(self.folder), self.setup, self.first, self.memory.emptied(), self.strategy)
        self.store = Store(self.folder)

    def _check(self) -> None:
        if not isinstance(self.objective, Classification):
            raise ValueError(f"a sequence of requests needs an image classifier, not {type(self.objective).__name__}")
        if len(self.memory):
            raise ValueError("the memory holds samples already: give an empty one, the sequence fills it")
        most = self.objective.num_classes
        outside = sorted(label for label in self.tasks.task_of if label >= most)
        if outside:
            raise ValueError(f"class {outside[0]} is of a task, but the model has {most} classes")

    @property
    def ledger(self) -> Ledger:
        """The ledger as it is on disk. Raises ValueError if it is of another sequence."""
        return self.queue.ledger

    def add(self, requests: Any) -> list[Entry]:
        """Queue requests after those that are there; see `Queue.add`."""
        return self.queue.add(requests)

    def run(self, requests: Any = None) -> Ledger:
        """Carry out what is queued, and return the ledger.

        Args:
            requests: the whole order of requests, from the first: those that the ledger lacks are queued. Called again
                with the same list, after a kill too, it goes on where it was.

        Raises:
            ValueError: what `Queue.complete` raises, or another process runs the requests.
            Exception: whatever a training raises; the request is marked as failed, and begins anew in the next run.
        """
        if requests is not None:
            self.queue.missing(requests)  # what is refused leaves nothing behind
        with self.queue.book.locked("run") if is_main() else nullcontext():
            if requests is not None:
                self.queue.complete(requests)
            ledger = self.ledger
            self._restore(ledger)
            for entry in ledger.open:
                self._carry_out(entry)
            self._export()
        return self.ledger

    def predict(self, data: SizedDataset) -> Predictions:
        """What the model says of samples as it is now, after `run` as the last request left it."""
        return self.strategy.predictor(self.objective.network, self.others)(data)

    # ---- one request -------------------------------------------------------------------------------
    def _carry_out(self, entry: Entry) -> None:
        before = self.queue.standing(self.ledger.entries[: entry.number - 1])
        change, after = before.change(entry.asked), before.after(entry.asked)
        if entry.state != "running":  # what a failed one left is not gone on with
            self.store.drop(entry.number)
            entry = self._begin(entry, change)
        self.memory.forget(change.forget)
        self.store.save_memory(entry.number - 1, self.memory)  # it is gone before anything is trained
        folder, temporary = self.store.request(entry.number), entry.asked.temporary
        sides = (change, before, after, self.memory, temporary, self.others)
        turn = Turn(self.objective, self.config, folder, entry.number, *sides)
        try:
            self.strategy.carry_out(turn)
        except Exception as error:
            said = redact(" ".join(str(error).split())) or type(error).__name__
            self.queue.put(replace(entry, state="failed", error=said[:500], times={**entry.times, "ended": now()}))
            self._restore(self.ledger)
            raise
        self._take_in(turn.change.learn)
        self._finish(entry, turn)

    def _begin(self, entry: Entry, change: Change) -> Entry:
        """Say in the ledger that the request is being carried out, and on what."""
        parts = {"learn": change.learn, "forget": change.forget}
        sets = {name: self.tasks.samples(positions) for name, positions in parts.items()}
        begun = replace(
            entry,
            state="running",
            error="",
            method=self.strategy.name,
            samples={name: len(positions) for name, positions in parts.items() if positions},
            data={name: whole_fingerprint(data) for name, data in sets.items() if data is not None},
            weights_before=model_digest(self.objective.network),
            memory_before=self.memory.digest,
            left_memory=len(change.forget & set(self.memory.positions)),
            times={**entry.times, "begun": now()},
        )
        self.queue.put(begun)
        return begun

    def _take_in(self, positions: Iterable[int]) -> None:
        """Take samples into the memory that it does not hold yet."""
        new = sorted(set(positions) - set(self.memory.positions))
        data = self.tasks.samples(new)
        if data is not None:
            herding = self.memory.by == "herding"
            self.memory.learn(new, data, class_features(self.objective.network) if herding else None)

    def _finish(self, entry: Entry, turn: Turn) -> None:
        """Measure, write weights and memory, then say in the ledger that the request is done, then clear up."""
        start = time.perf_counter()
        entries = [*self.ledger.entries[: entry.number - 1], entry]
        figures = measured(self.predict, self.tasks, turn.after, self.queue.forgotten(entries))
        figures |= {"kept_samples": len(self.memory), "kept_bytes": self.memory.nbytes}
        seconds = {**turn.seconds, "evaluate": time.perf_counter() - start}
        done = replace(
            entry,
            state="done",
            steps=turn.steps,
            weights_after=model_digest(self.objective.network),
            memory_after=self.memory.digest,
            figures=figures,
            times={**entry.times, "ended": now(), "seconds": seconds, "cpu": turn.cpu},
        )
        if self.audit is not None:
            done = replace(done, figures={**figures, **self.audit(done, self.predict, turn)})
        self.store.save_networks(entry.number, {OWN: self.objective.network, **self.others})
        self.store.save_memory(entry.number, self.memory)
        self.queue.put(done)
        self.store.clear(entry.number)

    # ---- files -------------------------------------------------------------------------------------
    def _restore(self, ledger: Ledger) -> None:
        """Take model and memory back to the end of the last request that is done."""
        number, network = len(ledger.done), self.objective.network
        self.others = {}
        if number:
            self.others = self.store.load_networks(number, network, lambda: self.objective.fresh_network(0))
        else:
            network.load_state_dict(self._given)
        found = self.store.load_memory(number)
        if found is not None:
            self.memory = found
        else:
            self.memory = self.memory.emptied()
            self._take_in(self.first.known)
            self.store.save_memory(number, self.memory)
        self.store.clear(number)

    def _export(self) -> None:
        """Write the model, loadable, with what it was made to forget in its configuration."""
        write_history(self.objective.network, [*self.history, *self.forgets(self.ledger)])
        in_main(self._write_model)

    def _write_model(self) -> None:
        folder = self.folder / MODEL
        self.objective.save_pretrained(str(folder))
        forget_local_names(folder)
        write_text(folder / CARD_FILE, card(self.ledger))

    def forgets(self, ledger: Ledger) -> list[dict[str, Any]]:
        """The requests that are done and forgot something, as entries of the unlearning history."""
        found = []
        for entry in ledger.done:
            part = entry.asked.to_forget
            if part is not None:
                made = history_entry(part.text, entry.method, entry.steps, self.objective.base_model)
                found.append({**made, "date": entry.times["ended"][:10], "request": entry.number})
        return found
