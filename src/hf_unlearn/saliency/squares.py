"""Sums of squared gradients, with one weight's gradient in memory at a time."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..common.kept import kept_bytes
from ..families import Objective
from .masks import Fisher

# Bytes for the per-sample gradients of one chunk, by device type. On CPUs larger chunks are slower: leaving the
# caches costs more than another pass through Python (`benchmarks/bench.py --only fisher`).
CHUNK_BYTES = {"cpu": 2**29}
CHUNK_BYTES_ELSEWHERE = 2**31
MIN_CHUNK = 8  # below this, plain autograd sample by sample is as fast as vmap, and needs a gradient at a time


def chunk_room(device: str) -> int:
    """Bytes that a chunk's gradients may take on a device of this type."""
    return CHUNK_BYTES.get(device, CHUNK_BYTES_ELSEWHERE)


def sample_chunk(parameters: Fisher, batch_size: int, device: str | None = None, kept: int = 0) -> int:
    """Return how many samples' gradients, and what their forward keeps, fit `CHUNK_BYTES`: at most a batch, and 1 if
    fewer than MIN_CHUNK fit.

    The result depends on sizes and the device alone. A chunk chosen by timing would change the last bits of a Fisher,
    and so single weights of a mask, from run to run.

    Args:
        parameters: all weights of the network, so that one of which few are trained is not taken for a small one.
        device: the device type, if it is not that of the parameters.
        kept: bytes that the forward of one sample keeps for its backward.
    """
    values = list(parameters.values())
    room = chunk_room(device or values[0].device.type)
    fitting = room // max(kept, sum(p.numel() * p.element_size() for p in values))
    return min(fitting, batch_size) if fitting >= MIN_CHUNK else 1


def strides(parameters: Fisher, room: int | None) -> dict[str, int]:
    """Choose which weights to sum squares of, so that two fp32 sums of each take `room` bytes: every k-th of a tensor.

    All tensors keep as many weights as the largest one that is thinned, or all of them. A stride has no divisor in
    common with a row, so that it meets every input and every place of a kernel.

    Args:
        room: None takes every weight.
    """
    most = max((p.numel() for p in parameters.values()), default=1)
    while True:
        found = {name: _stride(p, most) for name, p in parameters.items()}
        if room is None or most == 1 or 8 * sum(-(-p.numel() // found[n]) for n, p in parameters.items()) <= room:
            return found
        most = most * 7 // 8


def _stride(parameter: Tensor, most: int) -> int:
    stride, row = -(-parameter.numel() // most), parameter[0].numel() if parameter.ndim else 1
    while stride > 1 and math.gcd(stride, row) > 1:
        stride += 1
    return stride


def kept_by_sample(objective: Objective, batch: dict[str, Tensor]) -> int:
    """Bytes that the forward of the first sample of a batch with its draws keeps for its backward."""
    one = {name: value[:1] for name, value in batch.items()}
    with objective.measuring(keep_activations=False):
        return kept_bytes(lambda: objective(**one), objective.network)


class _Pass(nn.Module):
    """Forward and backward in one call: weights that `functional_call` puts in stay for what checkpointed activations
    are computed again from."""

    def __init__(self, objective: Objective):
        super().__init__()
        self.objective = objective

    def forward(self, batch: dict[str, Tensor], reduce: Callable[[Tensor], Tensor]) -> None:
        reduce(self.objective(**batch)).backward()


class Squares:
    """Sums over the gradients of an objective's trained weights, in fp32.

    Args:
        kind: "sample" squares the gradient of each sample's loss, "batch" that of each batch's mean loss; "sum" adds
            up the gradients themselves.
        room: bytes that the sums of two sets may take (`strides`); None for those of every weight.

    Attributes:
        sums: by parameter name, in the weight's shape; (n,) where only every k-th weight is summed.
    """

    def __init__(self, objective: Objective, kind: Literal["sample", "batch", "sum"], room: int | None = None):
        self.objective, self.kind = objective, kind
        self.every: Fisher = dict(objective.network.named_parameters())
        trained: Fisher = {name: p for name, p in self.every.items() if p.requires_grad}
        self.strides = strides(trained, room)
        self.sums: Fisher = {
            n: torch.zeros_like(self._thin(n, p.detach()), dtype=torch.float32) for n, p in trained.items()
        }
        # Aliases of the weights: their gradients touch neither those of the weights nor what hooks into them.
        self.leaves: Fisher = {name: p.detach().requires_grad_() for name, p in trained.items()}
        for name, leaf in self.leaves.items():
            leaf.register_post_accumulate_grad_hook(self._taker(name))
        self.kept: int | None = None  # bytes that one sample's forward keeps

    @property
    def device(self) -> torch.device:
        return next(iter(self.leaves.values())).device

    def add(self, batch: dict[str, Tensor], batch_size: int, chunk: int | None = None) -> None:
        """Add a batch with its draws.

        Args:
            batch_size: of the whole pass, which `sample_chunk` limits a chunk to.
            chunk: number of per-sample gradients computed together; None for `sample_chunk`.
        """
        if self.kind != "sample":
            return self._plain(batch, torch.mean if self.kind == "batch" else torch.sum)
        chunk = chunk or sample_chunk(self.every, batch_size, kept=self._kept(batch))
        for start in range(0, len(next(iter(batch.values()))), chunk):
            part = {name: value[start : start + chunk] for name, value in batch.items()}
            if chunk == 1:
                self._plain(part, torch.mean)
            else:
                self._together(part)

    def _kept(self, batch: dict[str, Tensor]) -> int:
        """Bytes that the forward of one sample keeps, measured once where the weights alone leave room for a chunk."""
        if self.kept is None:
            small = sample_chunk(self.every, MIN_CHUNK) > 1
            self.kept = kept_by_sample(self.objective, batch) if small else 0
        return self.kept

    def _plain(self, batch: dict[str, Tensor], reduce: Callable[[Tensor], Tensor]) -> None:
        with self.objective.measuring(keep_activations=False):
            leaves = {f"objective.network.{name}": leaf for name, leaf in self.leaves.items()}
            functional_call(_Pass(self.objective), leaves, (batch, reduce))

    def _together(self, batch: dict[str, Tensor]) -> None:
        """One backward pass for a chunk. SDPA's fused kernels have no batching rule, but its math form has one."""

        def sample_loss(values: Fisher, one: dict[str, Tensor]) -> Tensor:
            single = {k: v.unsqueeze(0) for k, v in one.items()}
            return functional_call(self.objective, {f"network.{n}": v for n, v in values.items()}, kwargs=single).sum()

        values = {name: leaf.detach() for name, leaf in self.leaves.items()}
        with self.objective.measuring(), sdpa_kernel(SDPBackend.MATH):
            gradients = vmap(grad(sample_loss), in_dims=(None, 0))(values, batch)
        for name, gradient in gradients.items():  # (chunk, *shape)
            self.sums[name].add_(self._thin(name, gradient.float().pow(2).sum(0)))  # gradients may share memory

    def _taker(self, name: str) -> Callable[[Tensor], None]:
        """What takes the gradient of a weight as soon as it is whole, and frees it."""

        @torch.no_grad()
        def take(leaf: Tensor) -> None:
            gradient, leaf.grad = leaf.grad, None
            assert gradient is not None
            added = self._thin(name, gradient).float()
            if self.kind == "sum":
                self.sums[name].add_(added)
            else:
                self.sums[name].addcmul_(added, added)

        return take

    def _thin(self, name: str, tensor: Tensor) -> Tensor:
        stride = self.strides[name]
        return tensor if stride == 1 else tensor.flatten()[::stride]
