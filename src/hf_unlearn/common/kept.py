"""How much a forward pass keeps for its backward pass, from sizes alone."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FAKE = FakeTensorMode()


def kept_bytes(forward: Callable[[], Tensor], network: nn.Module) -> int:
    """Bytes that `forward` keeps for its backward, beside the weights of `network`, and the largest of them once more
    for the gradient in flight. Only sizes are read, so that it counts on the meta device too."""
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, Any] = {}  # the storages themselves: a freed one's address may come again

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = forward()
    sizes = [storage.nbytes() for storage in kept.values()]
    del loss
    return sum(sizes) + max(sizes, default=0)


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, and their most."""

    def __init__(self, known: Iterable[Tensor]):
        super().__init__()
        self.known = {t.untyped_storage()._cdata for t in known}
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.total = 0  # of `alive`, in which dead ones are looked for only where it is more than the most
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and (storage := value.untyped_storage())._cdata not in self.known:
                _, old = self.alive.get(storage._cdata, (None, 0))  # the same storage, or a dead one at its address
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                self.total += storage.nbytes() - old
        if self.total > self.most:
            self.alive = {key: held for key, held in self.alive.items() if not held[0].expired()}
            self.total = sum(size for _, size in self.alive.values())
            self.most = max(self.most, self.total)
        return result


def passing_bytes(forward: Callable[[], Tensor], network: nn.Module) -> int:
    """The most bytes that are alive during `forward` and its backward pass, beside the weights of `network` and their
    gradients. It sees what checkpointed blocks compute again, and counts on the meta device too."""
    handles = [
        p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
        for p in network.parameters()
        if p.requires_grad
    ]
    live = _Live([*network.parameters(), *network.buffers()])
    with live:
        forward().backward()
    for handle in handles:
        handle.remove()
    return live.most


def stand_in(network: nn.Module) -> nn.Module:
    """A copy of a network whose tensors are fake ones on the CPU, without memory, so that autocast acts on them. It
    computes inside `FAKE` only."""
    told: dict[int, Any] = {}
    with FAKE:
        for p in network.parameters():
            told[id(p)] = nn.Parameter(torch.empty(p.shape, dtype=p.dtype), p.requires_grad)
        for b in network.buffers():
            told[id(b)] = torch.empty(b.shape, dtype=b.dtype)
    return copy.deepcopy(network, told)
