"""Streaming retain sets, for data larger than the disk: read in order, split over processes, resumable.

Only the first samples of such a set are known in advance. Samples have no position: an outer step takes the next ones
of the stream. Overlap with the forget set is not checked.
"""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch.utils.data import IterableDataset, Subset

from ..common.losses import spread
from .protocols import SizedDataset

HEAD = 512  # samples from which the labels are read
LOSSES_OF = 2048  # samples of a set whose mean loss is taken: its standard error is 2 % of their spread


class RetainStream:
    """A streaming retain set: a `datasets.IterableDataset` with the items of a map-style set.

    Attributes:
        example: the first sample.
        labels: class numbers of the first `HEAD` samples, or None if they have none.

    Raises:
        ValueError: the stream is empty, is no `datasets.IterableDataset`, or would not resume in the same order.
    """

    def __init__(self, rows: Any):
        import datasets

        if not isinstance(rows, datasets.IterableDataset):
            raise ValueError(f"a retain stream must be a datasets.IterableDataset, got {type(rows).__name__}")
        self.rows = rows
        items = list(self.first(HEAD))
        if not items:
            raise ValueError("the retain stream is empty: give at least one sample")
        if len(items) > 1 and not _same(items[1], self._after_first()):
            raise ValueError(
                "the retain stream does not go on where it was left (a shuffle buffer is filled anew): leave out "
                ".shuffle and store the shards shuffled"
            )
        self.example = items[0]
        self.labels = _class_numbers(items)

    def _after_first(self) -> dict[str, Any] | None:
        """Return the second sample as a run reads it that was interrupted after the first."""
        left, resumed = copy.deepcopy(self.rows), copy.deepcopy(self.rows)
        next(iter(left))
        resumed.load_state_dict(json.loads(json.dumps(left.state_dict())))
        return next(iter(resumed), None)

    def first(self, count: int) -> Iterator[dict[str, Any]]:
        """Iterate over the first `count` samples without moving the stream.

        Raises:
            ValueError: count is 0, which means all samples elsewhere.
        """
        if count < 1:
            raise ValueError("all samples of a stream cannot be taken: set fisher_samples to a number")
        return islice(iter(copy.deepcopy(self.rows)), count)


def first_of(dataset: Any) -> Any:
    """Return the first samples of a stream as a list, to evaluate on. Other data is returned as it is."""
    return list(dataset.first(HEAD)) if isinstance(dataset, RetainStream) else dataset


def few_of(dataset: Any) -> Any:
    """Return what a denoiser's mean loss is taken of: at most `LOSSES_OF` samples of a set, spread evenly.

    A pass over all of a large set would take longer than the training.
    """
    return dataset if len(dataset) <= LOSSES_OF else Subset(dataset, spread(len(dataset), LOSSES_OF))


def _same(one: dict[str, Any], other: dict[str, Any] | None) -> bool:
    return other is not None and all(_equal(one[key], other[key]) for key in one if isinstance(one, Mapping))


def _class_numbers(items: Sequence[Any]) -> list[int] | None:
    """The labels of the items; None if they are no numbers, which the trainer refuses later."""
    try:
        return [int(item["labels"]) for item in items]
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError):
        return None


def _equal(one: Any, other: Any) -> bool:
    try:
        return torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    except (TypeError, ValueError, RuntimeError):  # an image or a text, which the trainer refuses later
        return bool(one == other)


def places(number: int, size: int, count: int) -> list[int]:
    """Positions of the `count` samples that item `number` takes of a set: each sample occurs in each of the places."""
    stride = max(1, size // count)
    return [(number + k * stride) % size for k in range(count)]


class StreamedPairs(IterableDataset):
    """Endless pairs for one process. Item n holds forget[g % F] and samples to learn, where g is its position over
    all processes, and the next `retain_batches` samples of this process's part of the stream.

    Args:
        batch_size: the batch size of one process.
        rank, world: this process and the number of processes. `datasets` gives each process whole shards if their
            number divides evenly, else every world-th sample.
    """

    def __init__(
        self,
        forget: SizedDataset | None,
        retain: RetainStream,
        retain_batches: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        streams: Sequence[str] = ("forget", "retain"),
        learn: SizedDataset | None = None,
        learn_batches: int = 1,
    ):
        from datasets.distributed import split_dataset_by_node

        for name, part in (("forget", forget), ("learn", learn)):
            if part is not None and len(part) == 0:
                raise ValueError(f"the {name} set is empty: give at least one sample")
        self.learn, self.learn_batches = learn, learn_batches
        self.forget = forget if "forget" in streams else None
        self.retain_batches, self.batch_size, self.rank, self.world = retain_batches, batch_size, rank, world
        self._rows = split_dataset_by_node(copy.deepcopy(retain.rows), rank, world)
        self.restart()

    def restart(self, state: dict[str, Any] | None = None) -> None:
        """Start from the beginning, or continue from a `state()`.

        Raises:
            ValueError: the state belongs to a run with another number of processes or another batch size.
        """
        self._given, self._epoch, self._stored = 0, 0, None
        if state is None:
            return
        for key, ours in (("world", self.world), ("batch_size", self.batch_size)):
            if state[key] != ours:
                raise ValueError(f"the stream was left with {key} {state[key]}, this run has {ours}: use the same")
        self._given, self._epoch, self._stored = state["given"], state["epoch"], state["rows"]

    def state(self) -> dict[str, Any]:
        """Return this process's position, after the last item it yielded, as JSON values."""
        place = {"given": self._given, "epoch": self._epoch, "rows": self._rows.state_dict()}
        return {**place, "world": self.world, "batch_size": self.batch_size}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        samples = self._endless()
        while True:
            item: dict[str, Any] = {}
            batch, row = divmod(self._given, self.batch_size)
            position = (batch * self.world + self.rank) * self.batch_size + row
            if self.forget is not None:
                met = position % len(self.forget)
                item["forget"] = {**self.forget[met], "index": met}
            if self.learn is not None:
                item["learn"] = [self.learn[p] for p in places(position, len(self.learn), self.learn_batches)]
            item["retain"] = [next(samples) for _ in range(self.retain_batches)]
            self._given += 1
            yield item

    def _endless(self) -> Iterator[dict[str, Any]]:
        while True:
            self._rows.set_epoch(self._epoch)
            self._rows.load_state_dict(self._stored)  # None: from the beginning
            self._stored = None
            yield from self._rows
            self._epoch += 1
