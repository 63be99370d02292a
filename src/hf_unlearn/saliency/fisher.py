"""Diagonal Fishers and forget gradients, from which `masks` are computed.

A Fisher is a dict keyed by parameter name of the trained network.
"""

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal, cast

import torch
from torch.utils.data import ConcatDataset

from ..common.bars import bar
from ..common.errors import SPARE_FISHER, spare_memory
from ..common.losses import global_sum, spread, world_size
from ..data.fingerprint import fingerprint
from ..data.numerics import bad_samples, say_samples
from ..data.pairs import collate, subset
from ..data.protocols import SizedDataset
from ..data.streaming import RetainStream
from ..families import Objective
from .masks import Fisher
from .squares import Squares


def fisher(
    objective: Objective,
    dataset: SizedDataset | RetainStream,
    forget: bool,
    estimator: Literal["sample", "batch"] = "sample",
    max_samples: int = 512,
    batch_size: int = 32,
    seed: int = 0,
    chunk: int | None = None,
    *,
    name: str | None = None,
    room: int | None = None,
) -> tuple[Fisher, dict[str, str]]:
    """Compute the diagonal empirical Fisher of the training loss, without clipping or guidance, in eval mode.

    Gradients are taken in the precision of the weights, whatever autocast is on, and summed in fp32.

        sample: F_j = mean_i (∂l_i/∂θ_j)²               per-sample gradients
        batch:  F_j = mean_b (∂ mean_{i in b} l_i/∂θ_j)²   as in released code; ≈ F/B + (1-1/B) μ², so gamma then
                depends on the batch size

    Args:
        dataset: items as the objective's batches without draws.
        forget: whether the draws are those of forget batches, which have no label dropout.
        estimator: Fisher from per-sample or per-batch gradients.
        max_samples: number of samples, evenly spread over a data set or the first ones of a stream. 0 takes all.
        chunk: number of per-sample gradients computed together, by default `sample_chunk`. It changes memory and
            time, and the result only by rounding.
        name: of the set, for messages; by default forget or retain.
        room: bytes that two Fishers may take. Where they take more, only every k-th weight of the larger tensors has
            a value, (n,) in place of the weight's shape; `squares.strides` says which. None for all weights.

    Returns:
        The fp32 Fisher by parameter name, summed over processes, and metadata for the mask file.
    """
    if estimator not in ("sample", "batch"):
        raise ValueError(f"fisher estimator must be 'sample' or 'batch', got {estimator!r}")
    options = (max_samples, batch_size, seed, chunk, name, room)
    sums, metadata = _gradient_pass(objective, dataset, forget, estimator, *options)
    samples = int(metadata["samples"])
    count = samples if estimator == "sample" else -(-samples // batch_size)
    torch._foreach_div_(list(sums.values()), count)
    return sums, metadata


def fishers_of_all(
    objective: Objective,
    forget: SizedDataset,
    retain: SizedDataset,
    estimator: Literal["sample", "batch"],
    *options: int,
) -> tuple[Fisher, Fisher]:
    """Compute the Fishers of the forget data and of both sets together, with `options` as `fisher` takes them.

    Per sample, the second one is a mean of both sets' Fishers by their sizes. Per batch it is of shuffled batches of
    both sets, as in released code.
    """
    ours, _ = fisher(objective, forget, True, estimator, *options)
    size = len(forget) + len(retain)
    if estimator == "batch":
        both: Any = ConcatDataset([cast(Any, forget), cast(Any, retain)])
        order = torch.randperm(size, generator=torch.Generator().manual_seed(options[2]))
        return ours, fisher(objective, subset(both, order.tolist()), False, estimator, *options)[0]
    theirs, _ = fisher(objective, retain, False, estimator, *options)
    share = len(forget) / size
    return ours, {name: share * ours[name] + (1 - share) * theirs[name] for name in ours}


def forget_gradient(
    objective: Objective, dataset: SizedDataset, max_samples: int = 0, batch_size: int = 32, seed: int = 0
) -> tuple[Fisher, dict[str, str]]:
    """Compute |mean_i ∂l_i/∂θ_j| over the forget data (SalUn, arXiv 2310.12508, eq. 4), unclipped, in eval mode.

    Also return metadata for the mask file.
    """
    sums, metadata = _gradient_pass(objective, dataset, True, "sum", max_samples, batch_size, seed)
    torch._foreach_abs_(list(sums.values()))
    torch._foreach_div_(list(sums.values()), int(metadata["samples"]))
    return sums, metadata


def _gradient_pass(
    objective: Objective,
    dataset: SizedDataset | RetainStream,
    forget: bool,
    estimator: Literal["sample", "batch", "sum"],
    max_samples: int,
    batch_size: int,
    seed: int,
    chunk: int | None = None,
    name: str | None = None,
    room: int | None = None,
) -> tuple[Fisher, dict[str, str]]:
    """Sum what `Squares` makes of the gradients at the current weights, over the data and over processes."""
    if batch_size < 1 or max_samples < 0:
        raise ValueError(
            f"fisher_batch_size must be at least 1 and fisher_samples 0 (all), got {batch_size} and {max_samples}"
        )
    squares = Squares(objective, estimator, room)
    samples = 0
    count = None if isinstance(dataset, RetainStream) else min(max_samples or len(dataset), len(dataset))
    chunks = bar(
        _chunks(dataset, max_samples, batch_size),
        f"Fisher of {name or ('forget' if forget else 'retain')}",
        None if count is None else -(-count // batch_size),
    )
    for number, (size, items) in enumerate(chunks):
        samples += size
        if not items:
            continue
        batch = drawn_batch(objective, items, forget, seed * 1_000_003 + number, squares.device)
        with spare_memory("in the Fisher pass", SPARE_FISHER):
            squares.add(batch, batch_size, chunk)
    metadata = {
        "estimator": estimator,
        "samples": str(samples),
        "batch_size": str(batch_size),
        "data": fingerprint(dataset),
    }
    if isinstance(dataset, RetainStream):
        metadata["chosen"] = "the first of a stream"
    sums = {n: global_sum(s) for n, s in squares.sums.items()}
    _check_finite(sums, dataset, name or ("forget" if forget else "retain"), max_samples)
    return sums, metadata


def drawn_batch(objective: Objective, items: list[Any], forget: bool, seed: int, device: torch.device) -> dict:
    """A batch of items with its draws, on a device. `forget`: the draws are those of forget batches."""
    batch = collate(items)
    draws = objective.draw(batch, torch.Generator().manual_seed(seed))
    batch.update(objective.forget_draw(draws) if forget else draws)
    return {name: value.to(device) for name, value in batch.items()}


def _check_finite(sums: Fisher, dataset: SizedDataset | RetainStream, name: str, max_samples: int) -> None:
    """Raise ValueError, naming the samples at fault if there are any, unless all sums are finite."""
    if torch.stack(torch._foreach_norm(list(sums.values()), math.inf)).isfinite().all():
        return
    positions = [] if isinstance(dataset, RetainStream) else bad_samples(dataset, _chosen(dataset, max_samples))
    why = say_samples(name, positions) if positions else "losses or gradients overflow, load the model in float32"
    raise ValueError(f"the gradients of the {name} data are not finite: {why}")


def _chosen(dataset: SizedDataset, max_samples: int) -> list[int]:
    return spread(len(dataset), max_samples or len(dataset))


def _chunks(
    dataset: SizedDataset | RetainStream, max_samples: int, batch_size: int
) -> Iterator[tuple[int, list[dict]]]:
    """Yield (size, items) of each chunk. `items` is empty where another process reads the chunk."""
    rank, world = (torch.distributed.get_rank() if world_size() > 1 else 0), world_size()
    if isinstance(dataset, RetainStream):
        stream, number = dataset.first(max_samples), 0
        while items := list(islice(stream, batch_size)):
            yield len(items), items if number % world == rank else []
            number += 1
        return
    indices = _chosen(dataset, max_samples)
    for number, start in enumerate(range(0, len(indices), batch_size)):
        chunk = indices[start : start + batch_size]
        yield len(chunk), [dataset[i] for i in chunk] if number % world == rank else []
