"""Which weights matter for the forget data: diagonal Fishers and the weight masks made from them.

A Fisher and a mask are dicts keyed by parameter name of the trained network. Masks are bool, True where the
forget step may move the weight, and stored as safetensors, one bit a weight, with what they were made from.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import Dataset

from .data import collate
from .errors import SPARE_FISHER, spare_memory
from .files import atomic
from .losses import global_sum, spread, world_size
from .numerics import bad_samples, say_samples
from .objectives import Objective
from .sharding import local, rows_of
from .streams import RetainStream

Fisher = dict[str, Tensor]
# Below this share of the largest F_f a value is rounding: an attention key's bias, whose gradient is exactly 0 in
# theory, reads 1e-19 beside 1e-3. Without a floor such weights pass F_f > 0 and, by chance, F_f >= gamma F_r.
ROUNDING = 1e-12
# What the per-sample gradients of one chunk may take, by device. On CPUs more makes it slower, not faster: what no
# longer fits the caches costs more than a further pass of Python (`benchmarks/bench.py --only fisher`).
CHUNK_BYTES = {"cpu": 2**28}
CHUNK_BYTES_ELSEWHERE = 2**31
MIN_CHUNK = 4  # below this, one sample after the other by plain autograd is faster than vmap
SHAPES = "shapes"  # entry of a mask file's metadata: the tensors are packed, eight weights a byte


@dataclass
class Masks:
    """Weight masks by parameter name, and the metadata that says what made them."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def density(self) -> float:
        """Share of all weights that the forget step may move."""
        return sum(int(m.sum()) for m in self.tensors.values()) / sum(m.numel() for m in self.tensors.values())

    def table(self) -> list[tuple[str, int, float]]:
        """Rows (parameter name, number of weights, share that is salient)."""
        return [(name, m.numel(), m.float().mean().item()) for name, m in self.tensors.items()]

    def aligned(self, network: nn.Module) -> list[Tensor]:
        """Masks in the order of the network's trainable parameters; of sharded ones this process's rows.

        Raises:
            ValueError: names or shapes differ. Nothing is matched loosely: a mask that silently applies to nothing
                is how a released script lost its mask.
        """
        parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
        missing, extra = parameters.keys() - self.tensors.keys(), self.tensors.keys() - parameters.keys()
        if missing or extra:
            raise ValueError(
                f"the masks do not belong to this model: {len(missing)} parameters without a mask "
                f"{sorted(missing)[:2]}, {len(extra)} masks without a parameter {sorted(extra)[:2]}"
            )
        for name, p in parameters.items():
            if p.shape != self.tensors[name].shape:
                raise ValueError(
                    f"mask {name} has shape {tuple(self.tensors[name].shape)}, the model's is {tuple(p.shape)}"
                )
        return [rows_of(self.tensors[name], p).to(local(p).device, torch.bool) for name, p in parameters.items()]

    def save(self, path: str | Path) -> None:
        """Write the masks (one bit a weight) and the metadata as safetensors, whole or not at all."""
        packed = {n: torch.from_numpy(np.packbits(m.bool().cpu().numpy())) for n, m in self.tensors.items()}
        shapes = json.dumps({n: list(m.shape) for n, m in self.tensors.items()})
        with atomic(path) as partial:
            save_file(packed, partial, metadata={**self.metadata, SHAPES: shapes})

    @classmethod
    def load(cls, path: str | Path) -> "Masks":
        """Read what `save` wrote, or bool tensors as earlier versions did. Raises ValueError for anything else."""
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}
                metadata = file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path} is not a readable mask file (safetensors): {error}") from error
        if SHAPES in metadata:
            tensors = _unpacked(path, tensors, metadata.pop(SHAPES))
        wrong = [n for n, m in tensors.items() if m.dtype != torch.bool]
        if wrong or not tensors:
            raise ValueError(f"{path} holds no weight masks (bool tensors by parameter name)")
        return cls(tensors, metadata)


def _unpacked(path: str | Path, packed: dict[str, Tensor], shapes: str) -> dict[str, Tensor]:
    """Bool tensors from bits; ValueError if the file does not hold what its `shapes` say."""
    try:
        sizes = {name: torch.Size(shape) for name, shape in json.loads(shapes).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no weight masks: its shapes do not read ({error})") from error
    for name, bits in packed.items():
        if bits.dtype != torch.uint8 or name not in sizes or bits.numel() != -(-sizes[name].numel() // 8):
            raise ValueError(f"{path} holds no weight masks: {name} is not the bits of its shape")
    unpacked = {n: np.unpackbits(bits.numpy(), count=sizes[n].numel()) for n, bits in packed.items()}
    return {n: torch.from_numpy(flat).bool().view(sizes[n]) for n, flat in unpacked.items()}


def fingerprint(dataset: Dataset, samples: int = 64) -> str:
    """Short hash of a dataset: its length and `samples` items spread over it; of a stream its first ones."""
    if isinstance(dataset, RetainStream):
        digest, items = hashlib.sha256(b"stream"), dataset.first(samples)
    else:
        digest = hashlib.sha256(str(len(dataset)).encode())
        items = (dataset[i] for i in spread(len(dataset), samples))
    for item in items:
        for key, value in sorted(item.items()):
            digest.update(key.encode())
            digest.update(torch.as_tensor(value).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def fisher(
    objective: Objective,
    dataset: Dataset,
    forget: bool,
    estimator: Literal["sample", "batch"] = "sample",
    max_samples: int = 512,
    batch_size: int = 32,
    seed: int = 0,
    chunk: int | None = None,
) -> tuple[Fisher, dict[str, str]]:
    """Diagonal empirical Fisher of the training loss: never clipped, unguided, in eval mode, fp32 on device.

        sample: F_j = mean_i (∂l_i/∂θ_j)²               per-sample gradients
        batch:  F_j = mean_b (∂ mean_{i in b} l_i/∂θ_j)²   what released code computes; ≈ F/B + (1-1/B) μ²,
                so that gamma then depends on the batch size

    Args:
        dataset: items as the objective's batches without draws.
        forget: whose draws: a forget batch has no label dropout.
        max_samples: evenly spread over the dataset, the first ones of a stream; 0 takes all.
        chunk: samples whose gradients are taken together (`sample`); default what `sample_chunk` says. It changes
            memory and time, and the result by rounding only.

    Returns:
        The Fisher by parameter name (sums over processes), and metadata for the mask file.
    """
    if estimator not in ("sample", "batch"):
        raise ValueError(f"fisher estimator must be 'sample' or 'batch', got {estimator!r}")
    sums, metadata = _gradient_pass(objective, dataset, forget, estimator, max_samples, batch_size, seed, chunk)
    samples = int(metadata["samples"])
    count = samples if estimator == "sample" else -(-samples // batch_size)
    torch._foreach_div_(list(sums.values()), count)
    return sums, metadata


def forget_gradient(
    objective: Objective, dataset: Dataset, max_samples: int = 0, batch_size: int = 32, seed: int = 0
) -> tuple[Fisher, dict[str, str]]:
    """|mean_i ∂l_i/∂θ_j| over forget data (SalUn, arXiv 2310.12508, eq. 4), unclipped, in eval mode, and metadata."""
    sums, metadata = _gradient_pass(objective, dataset, True, "sum", max_samples, batch_size, seed)
    torch._foreach_abs_(list(sums.values()))
    torch._foreach_div_(list(sums.values()), int(metadata["samples"]))
    return sums, metadata


def sample_chunk(parameters: Fisher, batch_size: int, device: str | None = None) -> int:
    """Samples whose gradients are taken together: what `CHUNK_BYTES` hold, at most a batch; 1 if under MIN_CHUNK.

    From the model's size and device alone. A chunk picked by a stopwatch would make the last bits of a Fisher, and so
    single weights of a mask, differ from run to run. `device`: its type, if it is not where the parameters are.
    """
    values = list(parameters.values())
    room = CHUNK_BYTES.get(device or values[0].device.type, CHUNK_BYTES_ELSEWHERE)
    fitting = room // sum(p.numel() * p.element_size() for p in values)
    return min(fitting, batch_size) if fitting >= MIN_CHUNK else 1


def _gradient_pass(
    objective: Objective,
    dataset: Dataset,
    forget: bool,
    estimator: str,
    max_samples: int,
    batch_size: int,
    seed: int,
    chunk: int | None = None,
) -> tuple[Fisher, dict[str, str]]:
    """Sums over the data, and over processes, of what `_accumulate` makes of gradients at the present weights."""
    if batch_size < 1 or max_samples < 0:
        raise ValueError(
            f"fisher_batch_size must be at least 1 and fisher_samples 0 (all), got {batch_size} and {max_samples}"
        )
    parameters = {n: p for n, p in objective.network.named_parameters() if p.requires_grad}
    sums = {n: torch.zeros_like(p, dtype=torch.float32) for n, p in parameters.items()}
    samples = 0
    training = objective.training
    objective.eval()
    for number, (size, items) in enumerate(_chunks(dataset, max_samples, batch_size)):
        samples += size
        if not items:
            continue
        batch = collate(items)
        draws = objective.draw(batch, torch.Generator().manual_seed(seed * 1_000_003 + number))
        batch.update(objective.forget_draw(draws) if forget else draws)
        batch = {k: v.to(next(iter(parameters.values())).device) for k, v in batch.items()}
        with spare_memory("in the Fisher pass", SPARE_FISHER):
            if estimator == "sample":
                _accumulate_samples(sums, objective, parameters, batch, chunk or sample_chunk(parameters, batch_size))
            else:
                _accumulate(sums, objective, parameters, batch, square=estimator == "batch")
    objective.train(training)
    metadata = {
        "estimator": estimator,
        "samples": str(samples),
        "batch_size": str(batch_size),
        "data": fingerprint(dataset),
    }
    if isinstance(dataset, RetainStream):
        metadata["chosen"] = "the first of a stream"
    sums = {n: global_sum(s) for n, s in sums.items()}
    if not torch.stack(torch._foreach_norm(list(sums.values()), math.inf)).isfinite().all():
        name = "forget" if forget else "retain"
        positions = [] if isinstance(dataset, RetainStream) else bad_samples(dataset, _chosen(dataset, max_samples))
        why = say_samples(name, positions) if positions else "losses or gradients overflow, load the model in float32"
        raise ValueError(f"the gradients of the {name} data are not finite: {why}")
    return sums, metadata


def _chosen(dataset: Any, max_samples: int) -> list[int]:
    return spread(len(dataset), max_samples or len(dataset))


def _chunks(dataset: Any, max_samples: int, batch_size: int) -> Iterator[tuple[int, list[dict]]]:
    """(size, items) of each chunk in turn; no items where it is another process's turn."""
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
    """Add to `sums` the gradient of the batch's mean loss squared, or that of its sum as it is."""
    losses = objective(**batch)
    loss = losses.mean() if square else losses.sum()
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    pairs = [(sums[name], g.float()) for name, g in zip(parameters, gradients) if g is not None]
    totals, gradients = [s for s, _ in pairs], [g for _, g in pairs]
    if square:
        torch._foreach_addcmul_(totals, gradients, gradients)
    else:
        torch._foreach_add_(totals, gradients)


def _accumulate_samples(sums: Fisher, objective: Objective, parameters: Fisher, batch: dict, chunk: int) -> None:
    """Add squared per-sample gradients to `sums`, `chunk` samples at a time."""
    count = len(next(iter(batch.values())))
    for start in range(0, count, chunk):
        part = {k: v[start : start + chunk] for k, v in batch.items()}
        if chunk == 1:
            _accumulate(sums, objective, parameters, part, square=True)
            continue

        # One backward pass for the whole chunk. SDPA's fused kernels have no batching rule, its plain form does.
        def sample_loss(values: Fisher, one: dict) -> Tensor:
            single = {k: v.unsqueeze(0) for k, v in one.items()}
            return functional_call(objective, {f"network.{n}": v for n, v in values.items()}, kwargs=single).sum()

        values = {n: p.detach() for n, p in parameters.items()}
        with sdpa_kernel(SDPBackend.MATH):
            gradients = vmap(grad(sample_loss), in_dims=(None, 0))(values, part)
        for name, gradient in gradients.items():  # (chunk, *shape)
            sums[name].add_(gradient.float().pow(2).sum(0))  # not in place: gradients may share memory


def ratio_masks(
    forget: tuple[Fisher, dict[str, str]], retain: tuple[Fisher, dict[str, str]], gamma: float = 1.0
) -> Masks:
    """S = [F_f > 0 and F_f >= gamma F_r] (SFR-on). 0 is anything under `ROUNDING`: dead weights are not salient."""
    if gamma < 0:
        raise ValueError(f"gamma must not be negative, got {gamma}")
    alive = _alive(forget[0])
    tensors = {n: alive[n] & (f >= gamma * retain[0][n]) for n, f in forget[0].items()}
    return Masks(tensors, _provenance(forget[1], retain[1], gamma=str(gamma)))


def density_masks(
    forget: tuple[Fisher, dict[str, str]], retain: tuple[Fisher, dict[str, str]], density: float
) -> Masks:
    """The `density` share of all weights with the largest F_f / F_r; dead weights are not salient."""
    tiny, alive = torch.finfo(torch.float32).tiny, _alive(forget[0])
    scores = {n: torch.where(alive[n], f / retain[0][n].clamp(min=tiny), -1.0) for n, f in forget[0].items()}
    return Masks(top_masks(scores, density), _provenance(forget[1], retain[1], density=str(density)))


def top_masks(scores: Fisher, density: float) -> Fisher:
    """Bool tensors: the `density` share of all weights together with the largest positive scores."""
    if not 0 < density <= 1:
        raise ValueError(f"mask density must lie in (0, 1], got {density}")
    flat = torch.cat([s.flatten() for s in scores.values()])
    keep = max(1, round(density * flat.numel()))
    threshold = flat.kthvalue(flat.numel() - keep + 1).values
    return {n: (s >= threshold) & (s > 0) for n, s in scores.items()}


def _alive(fisher: Fisher) -> Fisher:
    floor = ROUNDING * max(f.max().item() for f in fisher.values())
    return {n: f > floor for n, f in fisher.items()}


def _provenance(forget: dict[str, str], retain: dict[str, str], **rule: str) -> dict[str, str]:
    return {**rule, "forget": json.dumps(forget), "retain": json.dumps(retain)}


def load_masks(path: str | Path, network: nn.Module) -> Masks:
    """Masks from a file, checked against the model: every name and shape must match."""
    masks = Masks.load(path)
    masks.aligned(network)
    return masks


def masks_from(value: Any, network: nn.Module) -> Masks | None:
    """Accept Masks, a dict of tensors or a path; None stays None."""
    if value is None:
        return None
    masks = value if isinstance(value, Masks) else Masks(dict(value)) if isinstance(value, dict) else Masks.load(value)
    masks.aligned(network)
    return masks
