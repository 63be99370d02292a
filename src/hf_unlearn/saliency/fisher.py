"""Diagonal Fishers and forget gradients, from which `masks` are computed.

A Fisher is a dict keyed by parameter name of the trained network.
"""

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
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

# Bytes for the per-sample gradients of one chunk, by device type. On CPUs larger chunks are slower: leaving the
# caches costs more than another pass through Python (`benchmarks/bench.py --only fisher`).
CHUNK_BYTES = {"cpu": 2**29}
CHUNK_BYTES_ELSEWHERE = 2**31
MIN_CHUNK = 4  # below this, plain autograd sample by sample is faster than vmap


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

    Returns:
        The fp32 Fisher by parameter name, summed over processes, and metadata for the mask file.
    """
    if estimator not in ("sample", "batch"):
        raise ValueError(f"fisher estimator must be 'sample' or 'batch', got {estimator!r}")
    options = (max_samples, batch_size, seed, chunk, name)
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


def sample_chunk(parameters: Fisher, batch_size: int, device: str | None = None) -> int:
    """Return how many per-sample gradients fit `CHUNK_BYTES`: at most a batch, and 1 if fewer than MIN_CHUNK fit.

    The result depends on the model's size and device alone. A chunk chosen by timing would change the last bits of a
    Fisher, and so single weights of a mask, from run to run.

    Args:
        device: the device type, if it is not that of the parameters.
    """
    values = list(parameters.values())
    room = CHUNK_BYTES.get(device or values[0].device.type, CHUNK_BYTES_ELSEWHERE)
    fitting = room // sum(p.numel() * p.element_size() for p in values)
    return min(fitting, batch_size) if fitting >= MIN_CHUNK else 1


def _gradient_pass(
    objective: Objective,
    dataset: SizedDataset | RetainStream,
    forget: bool,
    estimator: str,
    max_samples: int,
    batch_size: int,
    seed: int,
    chunk: int | None = None,
    name: str | None = None,
) -> tuple[Fisher, dict[str, str]]:
    """Sum what `_accumulate` makes of the gradients at the current weights, over the data and over processes."""
    if batch_size < 1 or max_samples < 0:
        raise ValueError(
            f"fisher_batch_size must be at least 1 and fisher_samples 0 (all), got {batch_size} and {max_samples}"
        )
    parameters: Fisher = {n: p for n, p in objective.network.named_parameters() if p.requires_grad}
    sums: Fisher = {n: torch.zeros_like(p, dtype=torch.float32) for n, p in parameters.items()}
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
        batch = collate(items)
        draws = objective.draw(batch, torch.Generator().manual_seed(seed * 1_000_003 + number))
        batch.update(objective.forget_draw(draws) if forget else draws)
        batch = {k: v.to(next(iter(parameters.values())).device) for k, v in batch.items()}
        with spare_memory("in the Fisher pass", SPARE_FISHER), objective.measuring():
            if estimator == "sample":
                _accumulate_samples(sums, objective, parameters, batch, chunk or sample_chunk(parameters, batch_size))
            else:
                _accumulate(sums, objective, parameters, batch, square=estimator == "batch")
    metadata = {
        "estimator": estimator,
        "samples": str(samples),
        "batch_size": str(batch_size),
        "data": fingerprint(dataset),
    }
    if isinstance(dataset, RetainStream):
        metadata["chosen"] = "the first of a stream"
    sums = {n: global_sum(s) for n, s in sums.items()}
    _check_finite(sums, dataset, name or ("forget" if forget else "retain"), max_samples)
    return sums, metadata


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


def _accumulate(sums: Fisher, objective: Objective, parameters: Fisher, batch: dict, square: bool) -> None:
    """Add the squared gradient of the batch's mean loss to `sums`, or the gradient of its summed loss."""
    losses = objective(**batch)
    loss = losses.mean() if square else losses.sum()
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    pairs = [(sums[name], g.float()) for name, g in zip(parameters, gradients) if g is not None]
    totals, added = [s for s, _ in pairs], [g for _, g in pairs]
    if square:
        torch._foreach_addcmul_(totals, added, added)
    else:
        torch._foreach_add_(totals, added)


def _accumulate_samples(sums: Fisher, objective: Objective, parameters: Fisher, batch: dict, chunk: int) -> None:
    """Add squared per-sample gradients to `sums`, `chunk` samples at a time."""
    count = len(next(iter(batch.values())))
    for start in range(0, count, chunk):
        part = {k: v[start : start + chunk] for k, v in batch.items()}
        if chunk == 1:
            _accumulate(sums, objective, parameters, part, square=True)
            continue

        # One backward pass for the chunk. SDPA's fused kernels have no batching rule, but its math form has one.
        def sample_loss(values: Fisher, one: dict) -> Tensor:
            single = {k: v.unsqueeze(0) for k, v in one.items()}
            return functional_call(objective, {f"network.{n}": v for n, v in values.items()}, kwargs=single).sum()

        values = {n: p.detach() for n, p in parameters.items()}
        with sdpa_kernel(SDPBackend.MATH):
            gradients = vmap(grad(sample_loss), in_dims=(None, 0))(values, part)
        for name, gradient in gradients.items():  # (chunk, *shape)
            sums[name].add_(gradient.float().pow(2).sum(0))  # not in place: gradients may share memory
