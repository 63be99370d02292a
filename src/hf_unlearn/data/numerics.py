"""Find inf and NaN in samples, weights and gradients."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from ..common.sharding import gather
from .images import ArrayDataset
from .protocols import SizedDataset

SHOWN = 5  # positions that a message names
SEARCHED = 10_000  # items that are read to find them


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the 2-norm of all tensors together as an fp32 scalar, 0 for no tensor.

    The norm is inf or NaN if any tensor holds such a value.
    """
    tensors = [t.detach() for t in tensors]
    if not tensors:
        return torch.zeros(())
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors, 2, dtype=torch.float32)))
    return gather(norm)


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Return `total_norm` of the gradients of the parameters that have one."""
    return total_norm(p.grad for p in parameters if p.grad is not None)


def bad_weight(network: nn.Module) -> str | None:
    """Return the name of a parameter that is not finite, or None."""
    return next((name for name, p in network.named_parameters() if not p.isfinite().all()), None)


def bad_samples(dataset: SizedDataset, positions: Sequence[int] | None = None) -> list[int]:
    """Return up to SHOWN positions of samples that hold inf or NaN, among `positions` (default all).

    Images in memory are checked all at once. Of other data at most SEARCHED items are read.
    """
    positions = list(range(len(dataset)) if positions is None else positions)
    base: Any = dataset
    places = positions
    while isinstance(base, Subset):
        base, places = base.dataset, [base.indices[i] for i in places]
    if type(base) is ArrayDataset:
        finite = base.pixel_values.flatten(1).isfinite().all(1)
        return [i for i, place in zip(positions, places) if not finite[place]][:SHOWN]
    found = (i for i in positions[:SEARCHED] if not _finite(dataset[i]))
    return [i for i, _ in zip(found, range(SHOWN))]


def in_memory(dataset: SizedDataset) -> bool:
    """Return whether the images are in memory, so that `bad_samples` is cheap."""
    base: Any = dataset
    while isinstance(base, Subset):
        base = base.dataset
    return type(base) is ArrayDataset


def say_samples(name: str, positions: list[int]) -> str:
    """Name the samples in a message: "forget samples 3, 7 hold inf or NaN"."""
    more = ", ..." if len(positions) == SHOWN else ""
    return f"{name} samples {', '.join(map(str, positions))}{more} hold inf or NaN"


def finite_batch(batch: dict) -> bool:
    """Return whether all tensors of a batch, nested or not, are finite."""
    parts = batch.values() if isinstance(batch, dict) else batch
    return all(bool(p.isfinite().all()) if isinstance(p, Tensor) else finite_batch(p) for p in parts)


def _finite(item: dict) -> bool:
    return all(bool(torch.as_tensor(value).isfinite().all()) for value in item.values())
