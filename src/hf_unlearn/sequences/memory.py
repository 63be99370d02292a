"""A bounded memory of what remains: the only past data that a model in service needs to keep."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..common.files import atomic
from ..common.identity import tensor_digest
from ..common.keys import content_key
from ..common.untrusted import loading
from ..data.images import ArrayDataset
from ..data.pairs import collate
from ..data.protocols import SizedDataset

Features = Callable[[Tensor], Tensor]  # (N, C, H, W) -> (N, D)
KEY = "replay_memory"  # of the file's metadata, the only one: the order of several is not fixed


class ReplayMemory:
    """At most so many samples, or bytes, of what was learnt, as many of each class as of any other.

    `by="reservoir"`: of each class a uniform random subset of all that was met. Each sample draws a key from (seed,
    position), and those with the smallest keys stay: reservoir sampling by random keys (Efraimidis & Spirakis 2006
    with equal weights), which, unlike Vitter's algorithm R (1985), does not depend on the order in which samples come
    and stays uniform when the share of a class shrinks or samples are taken out. Where a share grows again and more
    samples of the class come, those that had to go are missed.

    `by="herding"`: the samples whose mean feature follows that of the class (iCaRL, arXiv 1611.07725, algorithm 4):

        p_k = argmin_x | mu - (phi(x) + sum_{j<k} phi(p_j)) / k |,   phi of norm 1

    in this order, so that a class whose share shrinks loses the last ones (algorithm 5). mu is that of the samples
    met when the class was learnt: where single samples are forgotten later, the choice of those that stay was made
    with their help.

    What is forgotten leaves by `forget`, and a file that is saved afterwards does not hold it. There is no refill:
    past data are not at hand any more.

    Args:
        samples: how many are kept at most; None is bounded by `size` alone.
        size: how many bytes of samples are kept at most.
        by: how they are chosen.
        seed: of the reservoir's keys.

    Attributes:
        positions: of the kept samples in the training data, class by class, the first to stay first.

    Raises:
        ValueError: no bound is given, or one below 1.
    """

    def __init__(
        self,
        samples: int | None = 200,
        size: int | None = None,
        by: Literal["reservoir", "herding"] = "reservoir",
        seed: int = 0,
    ):
        if samples is None and size is None:
            raise ValueError("a memory needs a bound: give samples or size (bytes)")
        for name, value in (("samples", samples), ("size", size)):
            if value is not None and value < 1:
                raise ValueError(f"{name} of the memory must be at least 1, got {value}")
        if by not in ("reservoir", "herding"):
            raise ValueError(f"the memory chooses by reservoir or herding, got {by!r}")
        self.samples, self.size, self.by, self.seed = samples, size, by, seed
        self.positions: list[int] = []
        self.columns: dict[str, Tensor] = {}  # name -> (N, ...), pixel_values and labels among them

    # ---- bounds ------------------------------------------------------------------------------------
    def capacity(self, item: dict[str, Any]) -> int:
        """How many samples like `item` fit."""
        bounds = [] if self.samples is None else [self.samples]
        if self.size is not None:
            bounds.append(self.size // sum(torch.as_tensor(value).nbytes for value in item.values()))
        return min(bounds)

    def check(self, classes: Collection[int], item: dict[str, Any]) -> None:
        """Raise ValueError if the memory cannot hold a sample of each of so many classes."""
        most = self.capacity(item)
        if most < len(classes):
            raise ValueError(
                f"the memory holds {most} samples, fewer than the {len(classes)} classes that are known: enlarge it"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What it was made with, as JSON."""
        return {"samples": self.samples, "size": self.size, "by": self.by, "seed": self.seed}

    def emptied(self) -> "ReplayMemory":
        """An empty memory with the same settings."""
        return ReplayMemory(**self.settings)

    # ---- samples -----------------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self.positions)

    @property
    def labels(self) -> list[int]:
        """The class of each kept sample."""
        return self.columns["labels"].tolist() if self.positions else []

    @property
    def nbytes(self) -> int:
        """The size of what is kept."""
        return sum(column.nbytes for column in self.columns.values())

    def dataset(self, without: Collection[int] = ()) -> SizedDataset | None:
        """What is kept, but for the samples at the positions `without`, as a data set; None if that is nothing."""
        left_out = set(without)
        rows = torch.tensor([i for i, position in enumerate(self.positions) if position not in left_out])
        if not len(rows):
            return None
        return ArrayDataset(self.columns["pixel_values"][rows], self.columns["labels"][rows])

    def forget(self, positions: Iterable[int]) -> int:
        """Take the samples at these positions of the training data out, and return how many there were."""
        gone = set(positions)
        kept = [i for i, position in enumerate(self.positions) if position not in gone]
        lost = len(self.positions) - len(kept)
        if lost:
            self._take(kept)
        return lost

    def learn(
        self, positions: Sequence[int], data: SizedDataset, features: Features | None = None, batch: int = 256
    ) -> None:
        """Take in new samples, and make room for them class by class.

        Args:
            positions: of the samples in the training data, those of `data` in its order.
            features: (N, C, H, W) -> (N, D), what herding compares; the pixels without it.
            batch: samples that features are made of at a time.

        Raises:
            ValueError: a class would have no sample (`check`), or a sample is kept already.
        """
        if len(positions) != len(data):
            raise ValueError(f"{len(positions)} positions for {len(data)} samples: give one each")
        twice = set(positions) & set(self.positions)
        if twice:
            raise ValueError(f"sample {min(twice)} is in the memory already")
        new = {name: torch.as_tensor(column) for name, column in collate([data[i] for i in range(len(data))]).items()}
        labels = new["labels"].tolist()
        classes = sorted({*labels, *self.labels})
        first = {name: column[0] for name, column in new.items()}
        self.check(classes, first)
        share, more = divmod(self.capacity(first), len(classes))
        columns = {name: torch.cat([self.columns[name], new[name]]) if self.positions else new[name] for name in new}
        known = len(self.positions)
        self.positions, self.columns = [*self.positions, *positions], columns
        of_class: dict[int, tuple[list[int], list[int]]] = {label: ([], []) for label in classes}
        for row, label in enumerate(self.labels):
            of_class[label][row >= known].append(row)
        chosen: list[int] = []
        for number, label in enumerate(classes):
            chosen += self._chosen(*of_class[label], share + (number < more), features, batch)
        self._take(chosen)

    def _chosen(self, old: list[int], met: list[int], most: int, features: Features | None, batch: int) -> list[int]:
        """Rows of one class that stay, at most `most`, the first to stay first."""
        if self.by == "reservoir":
            return sorted([*old, *met], key=lambda row: self._key(self.positions[row]))[:most]
        if not met:
            return old[:most]
        rows = [*old, *met]
        pixels = self.columns["pixel_values"][torch.tensor(rows)]
        parts = [pixels[i : i + batch] for i in range(0, len(pixels), batch)]
        found = torch.cat([(features(part) if features else part).flatten(1).double() for part in parts])
        return [rows[i] for i in herded(found, most)]

    def _key(self, position: int) -> bytes:
        return hashlib.sha256(f"{self.seed} {position}".encode()).digest()

    def _take(self, rows: list[int]) -> None:
        """Keep these rows only, in this order, in tensors that hold nothing else."""
        self.positions = [self.positions[i] for i in rows]
        kept = {name: column[torch.tensor(rows)].clone() for name, column in self.columns.items()} if rows else {}
        self.columns = kept

    # ---- files -------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write it to a safetensors file, whole or not at all: the same content gives the same bytes."""
        said = json.dumps({**self.settings, "positions": self.positions}, sort_keys=True)
        columns = {name: column.contiguous() for name, column in self.columns.items()}
        with atomic(path) as partial:
            save_file(columns or {"empty": torch.zeros(1)}, partial, metadata={KEY: said})

    @classmethod
    def load(cls, path: str | Path) -> "ReplayMemory":
        """Read what `save` wrote. Raises ValueError for another file."""
        with loading(path):
            with safe_open(str(path), "pt") as file:
                said = json.loads((file.metadata() or {}).get(KEY, "null"))
            if said is None:
                raise ValueError(f"{path} is not a replay memory")
            columns = load_file(path)
        positions = said.pop("positions")
        memory = cls(**said)
        memory.positions, memory.columns = positions, columns if positions else {}
        return memory

    @property
    def digest(self) -> str:
        """16 hex digits that identify what is kept."""
        named = {name: tensor_digest(column) for name, column in self.columns.items()}
        return content_key([self.settings, self.positions, named])


def herded(features: Tensor, most: int) -> list[int]:
    """At most `most` rows of features (N, D) whose running mean follows the mean of all, in that order.

    arXiv 1611.07725, algorithm 4, with features of norm 1. Ties go to the first row.
    """
    phi = features / features.norm(dim=1, keepdim=True).clamp(min=1e-12)
    mean, total = phi.mean(0), torch.zeros_like(phi[0])
    left = torch.ones(len(phi), dtype=torch.bool)
    chosen: list[int] = []
    for k in range(1, min(most, len(phi)) + 1):
        distance = (mean - (phi + total) / k).norm(dim=1).masked_fill(~left, torch.inf)
        best = int(distance.argmin())
        chosen.append(best)
        left[best] = False
        total = total + phi[best]
    return chosen
