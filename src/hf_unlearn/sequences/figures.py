"""What a sequence of requests comes to, from its ledger alone.

The metrics are those of CLPU (Liu et al., CoLLAs 2022, arXiv 2203.12817), for requests of whole tasks. For requests of
classes and samples they are taken over the classes that are known: a task counts as retained while one of its classes
is, and its accuracy is that on the test samples of those.
"""

from collections.abc import Sequence
from typing import Any

from .ledger import Entry, Ledger

NAMES = {
    "AA": "average accuracy on what is known, over all requests",
    "FM": "how much of it was lost since it was learnt",
    "LA": "accuracy on what is new, right after it was learnt",
    "FA": "accuracy on forgotten training samples, right after",
    "relapse": "largest rise of that accuracy during later requests",
}


class Course:
    """The requests of a ledger that are done, as a matrix.

    Attributes:
        known: for each request the classes that are known after it.
        hits: for each request {class: (test samples it gets right, test samples)}.
        since: for each request {known class: the request since which it is known without a break}, from 0.
    """

    def __init__(self, entries: Sequence[Entry], tasks: Sequence[Sequence[int]]):
        self.entries, self.tasks = list(entries), [list(task) for task in tasks]
        self.known: list[list[int]] = [list(entry.figures["known"]) for entry in entries]
        self.hits = [{int(label): tuple(n) for label, n in e.figures["classes"].items()} for e in entries]
        self.since: list[dict[int, int]] = []
        for i, known in enumerate(self.known):
            before = self.since[-1] if self.since else {}
            self.since.append({label: before.get(label, i) for label in known})

    @classmethod
    def of(cls, ledger: Ledger) -> "Course":
        """The course of a ledger."""
        return cls(ledger.done, ledger.setup["tasks"])

    def accuracy(self, request: int, classes: Sequence[int]) -> float | None:
        """Accuracy on the test samples of `classes` after a request; None for no class."""
        return _share([self.hits[request][label] for label in classes])

    @property
    def matrix(self) -> list[list[float | None]]:
        """(requests, tasks): a_ij, the accuracy on task j after request i, on those of its classes that are known.
        None where none is."""
        kept = [[[c for c in task if c in known] for task in self.tasks] for known in self.known]
        return [[self.accuracy(i, classes) for classes in row] for i, row in enumerate(kept)]

    @property
    def whole(self) -> list[list[float]]:
        """(requests, tasks): the accuracy on all classes of a task, known or not."""
        found = [[self.accuracy(i, task) for task in self.tasks] for i in range(len(self.entries))]
        return [[0.0 if value is None else value for value in row] for row in found]

    @property
    def average_accuracy(self) -> float | None:
        """AA = Σ_i Σ_{j in R_i} a_ij / Σ_i |R_i|, R_i the tasks that are retained after request i."""
        return _mean([value for row in self.matrix for value in row if value is not None])

    @property
    def forgetting(self) -> float | None:
        """FM = Σ_i Σ_{j in R_i} (a_first,j - a_ij) / Σ_i |R_i|, a_first,j the accuracy right after j was learnt.

        Where the classes of a task were learnt by several requests, a_first is that of each class after its own.
        """
        lost = []
        for i, known in enumerate(self.known):
            for task in self.tasks:
                kept = [label for label in task if label in known]
                first = _share([self.hits[self.since[i][label]][label] for label in kept])
                now = self.accuracy(i, kept)
                if first is not None and now is not None:
                    lost.append(first - now)
        return _mean(lost)

    @property
    def learning_accuracy(self) -> float | None:
        """LA: the mean, over the requests that brought new classes, of the accuracy on these right after."""
        new = [[label for label, first in since.items() if first == i] for i, since in enumerate(self.since)]
        return _mean([value for i, classes in enumerate(new) if (value := self.accuracy(i, classes)) is not None])

    def left(self, request: int, later: int) -> float | None:
        """Accuracy after request `later` on the training samples that `request` forgot; None where they are known
        again, or `request` forgot nothing. Both count from 0."""
        return self.entries[later].figures["forgotten"].get(str(self.entries[request].number))

    @property
    def forget_requests(self) -> list[int]:
        """The requests that forgot something, from 0."""
        return [i for i in range(len(self.entries)) if self.left(i, i) is not None]

    @property
    def forget_accuracy(self) -> float | None:
        """FA: the mean, over the requests that forgot something, of the accuracy on that right after."""
        found = [self.left(i, i) for i in self.forget_requests]
        return _mean([value for value in found if value is not None])

    @property
    def relapse(self) -> float | None:
        """The largest of a_f(i) - a_f(f) over forget requests f and later requests i, at least 0: what was forgotten
        must not come back as others learn (task relapse, UnCLe, arXiv 2509.17530). None without a later request."""
        rises = []
        for f in self.forget_requests:
            right_after = self.left(f, f)
            for i in range(f + 1, len(self.entries)):
                later = self.left(f, i)
                if later is not None and right_after is not None:
                    rises.append(later - right_after)
        return max(0.0, *rises) if rises else None

    @property
    def seconds(self) -> list[float]:
        """Seconds that each request trained."""
        return [entry.trained_seconds for entry in self.entries]

    @property
    def cpu(self) -> float:
        """CPU seconds of training of all requests."""
        return sum(entry.times.get("cpu", 0.0) for entry in self.entries)

    def figures(self) -> dict[str, float | None]:
        """All metrics by the names of NAMES; shares from 0 to 1."""
        return {
            "AA": self.average_accuracy,
            "FM": self.forgetting,
            "LA": self.learning_accuracy,
            "FA": self.forget_accuracy,
            "relapse": self.relapse,
        }


def _share(counts: Sequence[Any]) -> float | None:
    total = sum(n for _, n in counts)
    return sum(hit for hit, _ in counts) / total if total else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
