"""Everything random in a batch, drawn from (seed, purpose, number): workers, processes and resumed runs agree."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..data.pairs import collate
from ..families.base import Objective
from .config import UnlearnConfig

Purpose = Literal["train", "eval", "profile", "progress"]
SALT: dict[Purpose, int] = {"train": 1, "eval": 2, "profile": 3, "progress": 0}


class Draws:
    """Adds timesteps, noise and dropped labels to batches.

    Args:
        objective: it says what is drawn.
        args: they give the seed, and this process's place among the others.
        place: puts a batch on the device of the run.
    """

    def __init__(self, objective: Objective, args: UnlearnConfig, place: Callable[[Any], Any]):
        self.objective, self.args, self.place = objective, args, place

    def generator(self, purpose: Purpose, number: int) -> torch.Generator:
        """The generator of the batch `number`, the same on every process."""
        return torch.Generator().manual_seed((self.args.draws_seed * 4 + SALT[purpose]) * 1_000_003 + number)

    def add(
        self, batch: dict[str, Tensor], generator: torch.Generator, forget: bool, split: bool = True
    ) -> dict[str, Tensor]:
        """Return `batch` with its draws, on the device.

        Args:
            forget: whether it is a forget batch, in which no label is dropped.
            split: whether `batch` is this process's part of a global batch.
        """
        rank, world = (self.args.process_index, self.args.world_size) if split else (0, 1)
        draws = self.objective.draw(batch, generator, rank, world)
        draws = self.objective.forget_draw(draws) if forget else draws
        return self.place({**batch, **draws})


def stream_loader(pairs: Any, batch_size: int, args: UnlearnConfig) -> DataLoader:
    """The loader of one process's part of a stream."""
    workers, pinned = args.dataloader_num_workers, args.dataloader_pin_memory
    return DataLoader(pairs, batch_size, collate_fn=collate, num_workers=workers, pin_memory=pinned)
