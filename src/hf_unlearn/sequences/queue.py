"""The order of requests on disk: what may still be asked, given all that was asked before."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from .ledger import Book, Entry, Ledger
from .memory import ReplayMemory
from .requests import Request, requests_of
from .store import in_main, is_main
from .strategies import Strategy


def now() -> str:
    """The present time (UTC), to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Queue:
    """Requests of one sequence in its ledger.

    Args:
        setup: what the sequence was set up with, as JSON: a ledger of another one is refused.
        first: what is known before the first request, a `Standing` or its like.
        memory: it says how many classes can be kept.
        strategy: it says which requests it can carry out.
    """

    def __init__(self, book: Book, setup: dict[str, Any], first: Any, memory: ReplayMemory, strategy: Strategy):
        self.book, self.setup, self.first = book, setup, first
        self.memory, self.strategy = memory, strategy

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
                f"{self.book.folder} holds requests of another sequence: {name} is {ledger.setup.get(name)} there and "
                f"{self.setup[name]} here"
            )
        return ledger

    def standing(self, entries: Iterable[Entry]) -> Any:
        """What is known after these requests."""
        standing = self.first
        for entry in entries:
            standing = standing.after(entry.asked)
        return standing

    def add(self, requests: Any) -> list[Entry]:
        """Queue requests (what `requests_of` takes) after those that are there, and return their entries.

        Raises:
            ValueError: one of them asks for what there is not, for what is done already, for more classes than the
                memory holds, or for what the strategy cannot do. None is queued then.
        """
        asked = requests_of([requests] if isinstance(requests, Request) else requests)
        self._check(self.ledger, asked)  # what is refused leaves no lock behind either
        with self.book.locked():
            ledger = self.ledger
            self._check(ledger, asked)
            added = ledger.added(asked, {"asked": now()})
            if is_main():
                self.book.write(added)
        return added.entries[len(ledger.entries) :]

    def missing(self, requests: Any) -> list[Request]:
        """What the ledger lacks of the whole order of requests.

        Raises:
            ValueError: the ledger holds other requests, or what `add` raises.
        """
        asked = requests_of([requests] if isinstance(requests, Request) else requests)
        ledger = self.ledger
        there = [entry.asked for entry in ledger.entries]
        if there != asked[: len(there)]:
            known = ", ".join(request.word for request in there)
            raise ValueError(f"{self.book.folder} holds the requests {known}: give these first, or add to them")
        self._check(ledger, asked[len(there) :])
        return asked[len(there) :]

    def complete(self, requests: Any) -> None:
        """Queue what the ledger lacks of the whole order of requests. Every process must call it.

        Raises:
            ValueError: what `missing` raises.
        """
        missing = self.missing(requests)  # in every process, so that all of them stop
        in_main(lambda: self.add(missing) if missing else None)

    def check(self, requests: list[Request]) -> None:
        """Raise ValueError if these cannot come after those that are there."""
        self._check(self.ledger, requests)

    def _check(self, ledger: Ledger, asked: list[Request]) -> None:
        standing = self.standing(ledger.entries)
        for number, request in enumerate(asked, len(ledger.entries) + 1):
            try:
                after = standing.after(request)
                after.check(self.memory)
                self.strategy.check(request, standing)
                standing = after
            except ValueError as error:
                raise ValueError(f"request {number} ({request.text}): {error}") from None

    def put(self, entry: Entry) -> None:
        """Write an entry in the place of that of its number. Every process must call it."""

        def write() -> None:
            with self.book.locked():  # others may have queued requests meanwhile
                self.book.write(replace(self.ledger.with_entry(entry), setup=self.setup))

        in_main(write)

    def forgotten(self, entries: Iterable[Entry]) -> dict[int, frozenset[Any]]:
        """By the number of each forget request among `entries`, what is still forgotten after all."""
        standing, found = self.first, {}
        for entry in entries:
            change = standing.change(entry.asked)
            standing = standing.after(entry.asked)
            if change.forget:
                found[entry.number] = change.forget
        left = {number: positions & standing.forgotten for number, positions in found.items()}
        return {number: positions for number, positions in left.items() if positions}
