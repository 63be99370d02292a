"""Numbers that are not finite: which samples, weights or gradients hold them."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from ..common.sharding import gather
from .images import ArrayDataset

SHOWN, SEARCHED = 5, 10_000  # positions that a message names, items that are read to find them


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """2-norm of all tensors together, in fp32, a scalar; 0 for none. inf or NaN if any of them holds one."""
    tensors = [t.detach() for t in tensors]
    if not tensors:
        return torch.zeros(())
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors, 2, dtype=torch.float32)))
    return gather(norm)


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """`total_norm` of the gradients that there are."""
    return total_norm(p.grad for p in parameters if p.grad is not None)


def bad_weight(network: nn.Module) -> str | None:
    """The name of a weight that is not finite, or None."""
    return next((name for name, p in network.named_parameters() if not p.isfinite().all()), None)


def bad_samples(dataset: Dataset, positions: Sequence[int] | None = None) -> list[int]:
    """Up to SHOWN positions (of `positions`, default all) of samples that hold inf or NaN.

    Images in memory are looked at all at once; of others at most SEARCHED are read.
    """
    positions = list(range(len(dataset)) if positions is None else positions)
    base, places = dataset, positions
    while isinstance(base, Subset):
        base, places = base.dataset, [base.indices[i] for i in places]
    if type(base) is ArrayDataset:
        finite = base.pixel_values.flatten(1).isfinite().all(1)
        return [i for i, place in zip(positions, places) if not finite[place]][:SHOWN]
    found = (i for i in positions[:SEARCHED] if not _finite(dataset[i]))
    return [i for i, _ in zip(found, range(SHOWN))]


def in_memory(dataset: Dataset) -> bool:
    """Whether `bad_samples` costs next to nothing."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return type(dataset) is ArrayDataset


def say_samples(name: str, positions: list[int]) -> str:
    """For a message."""
    more = ", ..." if len(positions) == SHOWN else ""
    return f"{name} samples {', '.join(map(str, positions))}{more} hold inf or NaN"


def finite_batch(batch: dict) -> bool:
    """Whether all tensors of a batch, nested or not, are finite."""
    parts = batch.values() if isinstance(batch, dict) else batch
    return all(bool(p.isfinite().all()) if isinstance(p, Tensor) else finite_batch(p) for p in parts)


def _finite(item: dict) -> bool:
    return all(bool(torch.as_tensor(value).isfinite().all()) for value in item.values())
