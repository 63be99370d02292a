"""Helpers for FSDP2-sharded parameters (DTensors).

Apart from the forward and backward pass, the training loop changes weights element by element: masks, moments, slow
weights. It therefore works on each process's own shard (`local`) without communication. torch.distributed.checkpoint
stores the shards as safetensors, never as pickles, and loads them on any number of processes.
"""

import copy
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def local(tensor: Tensor) -> Tensor:
    """Return this process's shard of `tensor`, sharing its storage. An unsharded tensor is returned as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_shards(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return `local` of every tensor, detached."""
    return [local(t.detach()) for t in tensors]


def is_sharded(module: nn.Module) -> bool:
    """Return whether any parameter of `module` is sharded."""
    return any(isinstance(p, DTensor) for p in module.parameters())


def shard_of(full: Tensor, parameter: Tensor) -> Tensor:
    """Return this process's shard of `full`, sharded like `parameter`. Processes do not communicate."""
    if not isinstance(parameter, DTensor):
        return full
    sharded = distribute_tensor(full, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return sharded.to_local().clone()  # a view would keep the full tensor alive


def skeleton(module: nn.Module) -> nn.Module:
    """Return a copy of `module` whose weights take no memory. Call it before sharding, and `fill` it later."""
    kept = module.state_dict().keys()  # buffers outside the state dict are copied
    saved = [*module.parameters(), *(b for name, b in module.named_buffers() if name in kept)]
    memo: dict[int, Tensor] = {}
    for tensor in saved:
        empty = tensor.detach().to("meta")
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(module, memo)


def fill(empty: nn.Module, sharded: nn.Module, device: torch.device) -> nn.Module:
    """Fill a `skeleton` with the gathered weights of the sharded module. Every process must call it."""
    empty.load_state_dict({name: gather(t).detach().cpu() for name, t in sharded.state_dict().items()}, assign=True)
    return empty.train(sharded.training).to(device)


def unshard(root: nn.Module) -> None:
    """Turn the root module that FSDP2 wrapped into an ordinary module, after its weights have been replaced."""
    from torch.distributed.fsdp import FSDPModule

    if isinstance(root, FSDPModule):
        root.__class__ = type(root).__mro__[2]  # FSDP<Name>, FSDPModule, <Name>
        root._forward_pre_hooks.clear()
        root._forward_hooks.clear()


def gather(tensor: Tensor) -> Tensor:
    """Return the full tensor of a sharded one. Every process must call it, in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def largest_of_shards(value: float, tensors: Iterable[Tensor]) -> float:
    """Return the largest `value` over all processes if any tensor is sharded, else `value`."""
    if not any(isinstance(t, DTensor) for t in tensors):
        return value
    found = torch.tensor(value, dtype=torch.float64)
    found = found.to(next(local(t).device for t in tensors))
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return found.item()


def sum_of_shards(value: Tensor, tensors: Iterable[Tensor]) -> Tensor:
    """Return `value` summed over all processes if any tensor is sharded, else `value`."""
    if any(isinstance(t, DTensor) for t in tensors):
        torch.distributed.all_reduce(value)
    return value


def save_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Write each process's shards as safetensors. Every process must call it."""
    from torch.distributed.checkpoint import save
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    folder.mkdir(parents=True, exist_ok=True)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    save({name: t.detach() for name, t in tensors.items()}, storage_writer=writer)


def shard_names(folder: Path) -> set[str]:
    """Return the names of the tensors that `save_shards` wrote."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    return set(HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata)


def load_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fill `tensors` in place from what `save_shards` wrote. The number of processes may differ."""
    from torch.distributed.checkpoint import load
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    load({n: t.detach() for n, t in tensors.items()}, storage_reader=HuggingFaceStorageReader(str(folder)))
