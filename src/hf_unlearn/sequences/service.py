"""Requests, one after another, on one model: kept on disk so that a run that was killed goes on where it was."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..common.bars import phase
from ..common.errors import redact
from ..common.files import write_text
from ..common.weights import model_digest
from ..families import Objective
from ..saving.export import forget_local_names, save_whole
from ..saving.history import entry as history_entry
from ..saving.history import read_history, write_history
from ..training.config import UnlearnConfig
from .ledger import Book, Entry, Ledger
from .memory import ReplayMemory
from .queue import Queue, now
from .report import CARD_FILE, card
from .store import OWN, Store, in_main, is_main
from .strategies import Strategy
from .turns import Turn

MODEL = "model"  # folder of the model as it is after the last request that is done
Audit = Callable[[Entry, Any, Turn], dict[str, Any]]


class Service:
    """What sequences of requests on every family share: ledger, files, and the order in which things are done.

    A sequence says what the data are: what a request comes to (`_turn`), what the memory holds (`_fill`, `_take_in`)
    and what is measured (`_figures`).

    Args:
        objective: around the model; its network is changed in place.
        config: arguments of every training.
        first: what is known before the first request.
        memory: an empty `ReplayMemory`.
        strategy: how requests are carried out.
        setup: what the sequence is made of, as JSON; what all sequences share is added.
        audit: called after each request with the entry, `audited` and the turn; what it returns is a figure too.
    """

    def __init__(
        self,
        objective: Objective,
        config: UnlearnConfig,
        first: Any,
        memory: ReplayMemory,
        strategy: Strategy,
        setup: dict[str, Any],
        audit: Audit | None = None,
    ):
        if len(memory):
            raise ValueError("the memory holds samples already: give an empty one, the sequence fills it")
        self.objective, self.config, self.first = objective, config, first
        self.memory, self.strategy, self.audit = memory, strategy, audit
        self.folder = Path(config.output_dir or "requests")
        self.history = read_history(objective.network)  # of the model as it was given
        self.others: dict[str, Any] = {}  # further networks that the strategy keeps
        self._given = deepcopy(objective.network.state_dict())
        self.setup = {
            "model": model_digest(objective.network),
            **setup,
            "memory": memory.settings,
            "method": strategy.as_dict(),
            "seed": config.seed,
            "steps": config.max_steps,
            "batch_size": config.per_device_train_batch_size * config.world_size,
            "learning_rate": None if config.find_strength else config.learning_rate,
        }
        if config.extend_to and config.extend_to > (config.max_steps or 0):
            self.setup["extend_to"] = config.extend_to
        self.queue = Queue(Book(self.folder), self.setup, first, memory.emptied(), strategy)
        self.store = Store(self.folder)

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

    # ---- what a sequence says ------------------------------------------------------------------------
    @property
    def audited(self) -> Any:
        """What an audit is given of the model."""
        raise NotImplementedError

    def _fill(self) -> None:
        """Put into the empty memory what is known before the first request."""
        raise NotImplementedError

    def _leaves(self, change: Any) -> set[int]:
        """Positions of the memory's samples that go with what a request forgets."""
        raise NotImplementedError

    def _turn(self, entry: Entry, change: Any, before: Any, after: Any) -> Turn:
        """What the strategy is given of a request. The memory lacks already what is forgotten."""
        raise NotImplementedError

    def _take_in(self, turn: Turn) -> None:
        """Take what was learnt into the memory."""
        raise NotImplementedError

    def _facts(self, change: Any) -> dict[str, Any]:
        """Fields of the ledger's entry that say what a request is carried out on."""
        raise NotImplementedError

    def _figures(self, entries: list[Entry], turn: Turn) -> dict[str, Any]:
        """What is measured after the last of these requests, as JSON."""
        raise NotImplementedError

    # ---- one request -------------------------------------------------------------------------------
    def _carry_out(self, entry: Entry) -> None:
        phase(f"request {entry.number} of {len(self.ledger.entries)}: {entry.asked.text}")
        before = self.queue.standing(self.ledger.entries[: entry.number - 1])
        change, after = before.change(entry.asked), before.after(entry.asked)
        gone = self._leaves(change)
        if entry.state != "running":  # what a failed one left is not gone on with
            self.store.drop(entry.number)
            entry = self._begin(entry, change, len(gone))
        self.memory.forget(gone)
        self.store.save_memory(entry.number - 1, self.memory)  # it is gone before anything is trained
        try:
            turn = self._turn(entry, change, before, after)
            self.strategy.carry_out(turn)
        except Exception as error:
            said = redact(" ".join(str(error).split())) or type(error).__name__
            self.queue.put(replace(entry, state="failed", error=said[:500], times={**entry.times, "ended": now()}))
            self._restore(self.ledger)
            raise
        self._take_in(turn)
        self._finish(entry, turn)

    def _begin(self, entry: Entry, change: Any, leaving: int) -> Entry:
        """Say in the ledger that the request is being carried out, and on what."""
        begun = replace(
            entry,
            state="running",
            error="",
            method=self.strategy.name,
            weights_before=model_digest(self.objective.network),
            memory_before=self.memory.digest,
            left_memory=leaving,
            times={**entry.times, "begun": now()},
            **self._facts(change),
        )
        self.queue.put(begun)
        return begun

    def _finish(self, entry: Entry, turn: Turn) -> None:
        """Measure, write weights and memory, then say in the ledger that the request is done, then clear up."""
        phase(f"measuring after request {entry.number}")
        start = time.perf_counter()
        figures = self._figures([*self.ledger.entries[: entry.number - 1], entry], turn)
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
            done = replace(done, figures={**figures, **self.audit(done, self.audited, turn)})
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
            phase("filling the memory")
            self._fill()
            self.store.save_memory(number, self.memory)
        self.store.clear(number)

    def _export(self) -> None:
        """Write the model, loadable, with what it was made to forget in its configuration."""
        phase("writing the model")
        write_history(self.objective.network, [*self.history, *self.forgets(self.ledger)])
        in_main(self._write_model)

    def _write_model(self) -> None:
        folder = self.folder / MODEL
        save_whole(self.objective, folder)
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
