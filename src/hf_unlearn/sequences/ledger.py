"""The ledger of a model in service: what was asked of it, and what came of each request. It never holds data."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from ..common.files import fcntl, write_text
from ..common.untrusted import read_json
from ..report.reading import from_json
from .requests import Request, request_of

LEDGER_FILE, LOCK_FILE = "ledger.json", "ledger.lock"
STATES = ("queued", "running", "done", "failed")
VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One request in the ledger. The times are all that two runs of the same requests differ in."""

    number: Annotated[int, "place in the order of requests, from 1"]
    request: Annotated[dict[str, Any], "what was asked", "part"]
    state: Annotated[str, "`queued`, `running`, `done` or `failed`"] = "queued"
    samples: Annotated[dict[str, int], "how many samples were learnt and forgotten", "part"] = field(
        default_factory=dict
    )
    data: Annotated[dict[str, str], "hashes of the samples that were learnt and forgotten", "part"] = field(
        default_factory=dict
    )
    method: Annotated[str, "how it was done"] = ""
    steps: Annotated[int, "outer steps that it took"] = 0
    weights_before: Annotated[str, "hash of the weights before it"] = ""
    weights_after: Annotated[str, "hash of the weights after it"] = ""
    memory_before: Annotated[str, "hash of the replay memory before it"] = ""
    memory_after: Annotated[str, "hash of the replay memory after it"] = ""
    left_memory: Annotated[int, "samples that left the replay memory because they were to be forgotten"] = 0
    figures: Annotated[dict[str, Any], "what was measured after it", "metric"] = field(default_factory=dict)
    error: Annotated[str, "why it failed, in one line"] = ""
    times: Annotated[dict[str, Any], "when it was asked, begun and ended, and the seconds of each part", "time"] = (
        field(default_factory=dict)
    )

    @property
    def asked(self) -> Request:
        """The request."""
        return request_of(self.request)

    @property
    def trained_seconds(self) -> float:
        """Seconds of all that it took but the measuring."""
        return sum(s for part, s in self.times.get("seconds", {}).items() if part != "evaluate")


@dataclass(frozen=True)
class Ledger:
    """All requests in their order, with what the sequence was set up with. A value: `Book` keeps it on disk."""

    setup: Annotated[dict[str, Any], "model, data, tasks, memory and method, as they were given", "name"] = field(
        default_factory=dict
    )
    entries: Annotated[list[Entry], "the requests"] = field(default_factory=list)
    version: Annotated[int, f"version of this layout: {VERSION}"] = VERSION

    @property
    def done(self) -> list[Entry]:
        """The requests that are done."""
        return [entry for entry in self.entries if entry.state == "done"]

    @property
    def open(self) -> list[Entry]:
        """The requests that are not done, in order: a run begins with the first."""
        return [entry for entry in self.entries if entry.state != "done"]

    def added(self, requests: list[Request], times: dict[str, Any]) -> "Ledger":
        """With these requests at the end of the queue."""
        first = len(self.entries) + 1
        new = [Entry(first + i, request.as_dict(), times=times) for i, request in enumerate(requests)]
        return replace(self, entries=[*self.entries, *new])

    def with_entry(self, entry: Entry) -> "Ledger":
        """With this entry in the place of that of its number."""
        return replace(self, entries=[entry if each.number == entry.number else each for each in self.entries])

    def substance(self) -> dict[str, Any]:
        """All but the times: what a run that was killed and went on shares with one that was not."""
        return {
            **asdict(self),
            "entries": [{k: v for k, v in asdict(e).items() if k != "times"} for e in self.entries],
        }


class Book:
    """The ledger's file in `folder`. It is written whole or not at all."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.path = self.folder / LEDGER_FILE

    @property
    def exists(self) -> bool:
        """Whether there is a ledger."""
        return self.path.is_file()

    def read(self) -> Ledger:
        """The ledger as it is on disk; an empty one where there is none.

        Raises:
            ValueError: the file is torn, is no ledger, or was written by a newer version.
        """
        if not self.exists:
            return Ledger()
        values = read_json(self.path)
        version = values.get("version")
        if not isinstance(version, int) or version > VERSION:
            raise ValueError(f"{self.path} has version {version}, this one reads {VERSION}: upgrade hf-unlearn")
        try:
            ledger = from_json(Ledger, values, "")
            for number, entry in enumerate(ledger.entries, 1):
                if entry.state not in STATES or entry.number != number:
                    raise ValueError(f"entry {number} has the state {entry.state!r} and the number {entry.number}")
                request_of(entry.request)
        except ValueError as error:
            raise ValueError(f"{self.path} is no ledger of requests: {error}") from error
        return ledger

    def write(self, ledger: Ledger) -> None:
        """Write the ledger. Raises OSError in one line."""
        write_text(self.path, json.dumps(asdict(ledger), indent=1, sort_keys=True) + "\n")

    @contextmanager
    def locked(self, purpose: Literal["run", "write"] = "write") -> Iterator[None]:
        """Keep other processes from changing the ledger, or from running its requests, inside.

        Raises:
            ValueError: another process runs the requests already.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if fcntl is None:
            yield
            return
        with open(self.folder / f"{LOCK_FILE}.{purpose}", "a") as file:  # it holds nothing
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if purpose == "run" else 0))
            except BlockingIOError:
                raise ValueError(f"another process runs the requests of {self.folder}: wait for its end") from None
            yield
