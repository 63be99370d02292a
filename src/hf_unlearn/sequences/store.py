"""The files of a sequence: weights and memory after the last request that is done, by the number of the request."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch import nn

from ..common.weights import load_weights, save_weights
from .memory import ReplayMemory

OWN = "model"  # name of the model's own weights among those that a strategy keeps


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return PartialState().is_main_process


def in_main(write: Callable[[], Any]) -> None:
    """Write in the first of several processes, while the others wait. Every process must call it."""
    if is_main():
        write()
    PartialState().wait_for_everyone()


class Store:
    """Weights and memories in `folder`. A file of number N is complete before the ledger says that request N is done.

    Number 0 is the time before the first request.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def request(self, number: int) -> Path:
        """The folder in which a request is carried out."""
        return self.folder / f"request-{number:04d}"

    def _weights(self, number: int, name: str) -> Path:
        return self.folder / f"weights-{number:04d}-{name}.safetensors"

    def _memory(self, number: int) -> Path:
        return self.folder / f"memory-{number:04d}.safetensors"

    def save_networks(self, number: int, networks: dict[str, nn.Module]) -> None:
        """Write the weights of networks by name, in the first process. Every process must call it."""
        for name, network in networks.items():
            save_weights(network, self._weights(number, name), is_main())
        PartialState().wait_for_everyone()

    def load_networks(self, number: int, network: nn.Module, fresh: Callable[[], nn.Module]) -> dict[str, nn.Module]:
        """Load the model's weights into `network`, and return the other networks, each made by `fresh`, by name."""
        load_weights(network, self._weights(number, OWN))
        others = {}
        for path in sorted(self.folder.glob(f"weights-{number:04d}-*.safetensors")):
            name = path.name.removeprefix(f"weights-{number:04d}-").removesuffix(".safetensors")
            if name != OWN:
                others[name] = fresh()
                load_weights(others[name], path)
        return others

    def save_memory(self, number: int, memory: ReplayMemory) -> None:
        """Write a memory, in the first process. Every process must call it."""
        in_main(lambda: memory.save(self._memory(number)))

    def load_memory(self, number: int) -> ReplayMemory | None:
        """The memory after a request; None where there is none. Every process must call it."""
        path = self._memory(number)
        there = path.is_file()
        PartialState().wait_for_everyone()
        return ReplayMemory.load(path) if there else None

    def drop(self, number: int) -> None:
        """Remove what was left of a request that failed. Every process must call it."""
        in_main(lambda: shutil.rmtree(self.request(number), ignore_errors=True))

    def clear(self, number: int) -> None:
        """Remove what only the time before the end of request `number` needed. Every process must call it."""
        in_main(lambda: self._clear(number))

    def _clear(self, number: int) -> None:
        for kind in ("memory", "weights", "request"):  # the memory first, as it holds data
            for path in self.folder.glob(f"{kind}-*"):
                at = int(path.name.split("-")[1].partition(".")[0])
                if at < number or (kind == "request" and at == number):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
