"""Requests, one after another, on one model: kept on disk so that a run that was killed goes on where it was."""

import shutil
import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Listed
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..common.errors import redact
from ..common.weights import load_weights, model_digest, save_weights
from ..data.fingerprint import whole_fingerprint
from ..families import Classification, Objective
from ..families.load import objective_for
from ..saving.history import entry as history_entry
from ..saving.history import read_history, write_history
from ..training.config import UnlearnConfig
from .ledger import Book, Entry, Ledger
from .measuring import class_features, measured
from .memory import ReplayMemory
from .requests import Part, Request, requests_of
from .strategies import Strategy, Unlearning
from .tasks import Standing, Tasks
from .turns import Turn

MODEL = "model"  # folder of the model as it is after the last request that is done
Audit = Callable[[Entry, Objective, Turn], dict[str, Any]]


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
        strategy: how requests are carried out.
        known: what the model knows already, to be remembered; None: nothing.
        audit: called after each request with its entry, the objective and the turn; what it returns joins the figures.

    Raises:
        ValueError: the folder holds another sequence, or model, tasks and memory do not fit each other.
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
        self.strategy, self.audit = strategy or Unlearning(), audit
        self.folder = Path(config.output_dir or "requests")
        self.book = Book(self.folder)
        self._check()
        self.first = Standing(tasks)
        if known is not None:
            self.first = self.first.after(Request(learn=known))
        self.history = read_history(self.objective.network)  # of the model as it was given
        self.others: dict[str, Any] = {}
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
            "batch_size": config.per_device_train_batch_size,
            "learning_rate": None if config.find_strength else config.learning_rate,
        }

    def _check(self) -> None:
        if not isinstance(self.objective, Classification):
            raise ValueError(f"a sequence of requests needs an image classifier, not {type(self.objective).__name__}")
        if len(self.memory):
            raise ValueError("the memory holds samples already: give an empty one, the sequence fills it")
        most = self.objective.num_classes
        outside = sorted(label for label in self.tasks.task_of if label >= most)
        if outside:
            raise ValueError(f"class {outside[0]} is of a task, but the model has {most} classes")

    # ---- the queue ---------------------------------------------------------------------------------
    @property
    def ledger(self) -> Ledger:
        """The ledger as it is on disk. Raises ValueError if it is of another sequence."""
        ledger = self.book.read()
        if not ledger.setup:
            return replace(ledger, setup=self.setup)
        differs = sorted(name for name in self.setup if ledger.setup.get(name) != self.setup[name])
        if differs:
            name = differs[0]
            raise ValueError(
                f"{self.folder} holds requests of another sequence: {name} is {ledger.setup.get(name)} there and "
                f"{self.setup[name]} here"
            )
        return ledger

    def standing(self, entries: Listed[Entry]) -> Standing:
        """What is known after these requests."""
        standing = self.first
        for entry in entries:
            standing = standing.after(entry.asked)
        return standing

    def add(self, requests: Any) -> list[Entry]:
        """Queue requests (what `requests_of` takes) after those that are there, and return their entries.

        Raises:
            ValueError: one of them asks for what there is not, for what is done already, or for more classes than the
                memory holds. None is queued then.
        """
        asked = requests_of([requests] if isinstance(requests, Request) else requests)
        with self.book.locked():
            ledger = self.ledger
            standing = self.standing(ledger.entries)
            for number, request in enumerate(asked, len(ledger.entries) + 1):
                try:
                    standing = standing.after(request)
                    self.memory.check(standing.classes, self.tasks.train[0])
                    self.strategy.check(request)
                except ValueError as error:
                    raise ValueError(f"request {number} ({request.text}): {error}") from None
            added = ledger.added(asked, {"asked": _now()})
            if self._is_main:
                self.book.write(added)
        return added.entries[len(ledger.entries) :]

    def run(self, requests: Any = None) -> Ledger:
        """Carry out what is queued, and return the ledger.

        Args:
            requests: the whole order of requests, from the first: those that the ledger lacks are queued. Called again
                with the same list, after a kill too, it goes on where it was.

        Raises:
            ValueError: what `add` raises, the ledger holds other requests, or another process runs them.
            Exception: whatever a training raises; the request is marked as failed, and begins anew in the next run.
        """
        with self.book.locked("run") if self._is_main else nullcontext():
            if requests is not None:
                self._queue(requests_of([requests] if isinstance(requests, Request) else requests))
            PartialState().wait_for_everyone()
            ledger = self.ledger
            self._restore(ledger)
            for entry in ledger.open:
                self._carry_out(entry)
            self._export()
        return self.ledger

    def _queue(self, asked: list[Request]) -> None:
        there = [entry.asked for entry in self.ledger.entries]
        if there != asked[: len(there)]:
            known = ", ".join(request.word for request in there)
            raise ValueError(f"{self.folder} holds the requests {known}: give these first, or add to them")
        if asked[len(there) :] and self._is_main:
            self.add(asked[len(there) :])

    # ---- one request -------------------------------------------------------------------------------
    def _carry_out(self, entry: Entry) -> None:
        ledger = self.ledger
        before = self.standing(ledger.entries[: entry.number - 1])
        change, after = before.change(entry.asked), before.after(entry.asked)
        folder = self.folder / f"request-{entry.number:04d}"
        if entry.state != "running":  # what a failed one left is not gone on with
            self._main(lambda: shutil.rmtree(folder, ignore_errors=True))
            entry = self._begin(entry, change, before)
        self.memory.forget(change.forget)
        self._main(
            lambda: self.memory.save(self._memory_file(entry.number - 1))
        )  # it is gone before anything is trained
        args = (self.objective, self.config, folder, entry.number, change, before, after, self.memory)
        turn = Turn(*args, entry.asked.temporary, self.others)
        try:
            self.strategy.carry_out(turn)
        except Exception as error:
            said = redact(" ".join(str(error).split())) or type(error).__name__
            failed = replace(entry, state="failed", error=said[:500], times={**entry.times, "ended": _now()})
            self._put(failed)
            self._restore(self.ledger)
            raise
        self._take_in(turn.change.learn)
        self._finish(entry, turn)

    def _begin(self, entry: Entry, change: Any, before: Standing) -> Entry:
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
            times={**entry.times, "begun": _now()},
        )
        self._put(begun)
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
        predict = self.strategy.predictor(turn)
        figures = measured(predict, self.tasks, turn.after, self.forgotten(entries))
        figures |= {"kept_samples": len(self.memory), "kept_bytes": self.memory.nbytes}
        seconds = {**turn.seconds, "evaluate": time.perf_counter() - start}
        done = replace(
            entry,
            state="done",
            steps=turn.steps,
            weights_after=model_digest(self.objective.network),
            memory_after=self.memory.digest,
            figures=figures,
            times={**entry.times, "ended": _now(), "seconds": seconds},
        )
        if self.audit is not None:
            done = replace(done, figures={**figures, **self.audit(done, self.objective, turn)})
        save_weights(self.objective.network, self._weights_file(entry.number), self._is_main)
        if self._is_main:
            self.memory.save(self._memory_file(entry.number))
            for name, network in self.others.items():
                save_weights(network, self._weights_file(entry.number, name))
        self._put(done)
        self._main(lambda: self._clear(entry.number))

    def forgotten(self, entries: Listed[Entry]) -> dict[int, frozenset[int]]:
        """By the number of each forget request among `entries`, the positions that are still forgotten after all."""
        standing, found = self.first, {}
        for entry in entries:
            change = standing.change(entry.asked)
            standing = standing.after(entry.asked)
            if change.forget:
                found[entry.number] = change.forget
        left = {number: positions & standing.forgotten for number, positions in found.items()}
        return {number: positions for number, positions in left.items() if positions}

    # ---- files -------------------------------------------------------------------------------------
    def _weights_file(self, number: int, name: str = "model") -> Path:
        return self.folder / f"weights-{number:04d}-{name}.safetensors"

    def _memory_file(self, number: int) -> Path:
        return self.folder / f"memory-{number:04d}.safetensors"

    def _restore(self, ledger: Ledger) -> None:
        """Take model and memory back to the end of the last request that is done."""
        number = len(ledger.done)
        network = self.objective.network
        self.others.clear()
        if number:
            load_weights(network, self._weights_file(number))
            for path in sorted(self.folder.glob(f"weights-{number:04d}-*.safetensors")):
                name = path.name.removeprefix(f"weights-{number:04d}-").removesuffix(".safetensors")
                if name != "model":
                    self.others[name] = self.objective.fresh_network(0)
                    load_weights(self.others[name], path)
        else:
            network.load_state_dict(self._given)
        path = self._memory_file(number)
        there = path.is_file()
        PartialState().wait_for_everyone()
        if there:
            self.memory = ReplayMemory.load(path)
        else:
            self.memory = self.memory.emptied()
            self._take_in(self.first.known)
        self._main(lambda: None if there else self.memory.save(path))
        self._main(lambda: self._clear(number))

    def _clear(self, number: int) -> None:
        """Remove what only the time before request `number` needed: older memories first, as they hold data."""
        for kind in ("memory", "weights", "request"):
            for path in self.folder.glob(f"{kind}-*"):
                at = int(path.name.split("-")[1].partition(".")[0])
                if at < number or (kind == "request" and at == number):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _export(self) -> None:
        """Write the model, loadable, with what it was made to forget in its configuration."""
        write_history(self.objective.network, [*self.history, *self.forgets(self.ledger)])
        self._main(lambda: self.objective.save_pretrained(str(self.folder / MODEL)))

    def forgets(self, ledger: Ledger) -> list[dict[str, Any]]:
        """The requests that are done and forgot something, as entries of the unlearning history."""
        found = []
        for entry in ledger.done:
            part = entry.asked.to_forget
            if part is not None:
                made = history_entry(part.text, entry.method, entry.steps, self.objective.base_model)
                found.append({**made, "date": entry.times["ended"][:10], "request": entry.number})
        return found

    # ---- processes ---------------------------------------------------------------------------------
    @property
    def _is_main(self) -> bool:
        return PartialState().is_main_process

    def _main(self, write: Callable[[], Any]) -> None:
        """Write in the first of several processes, while the others wait."""
        if self._is_main:
            write()
        PartialState().wait_for_everyone()

    def _put(self, entry: Entry) -> None:
        def write() -> None:
            with self.book.locked():  # others may have queued requests meanwhile
                self.book.write(replace(self.ledger.with_entry(entry), setup=self.setup))

        self._main(write)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
