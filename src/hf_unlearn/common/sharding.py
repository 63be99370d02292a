"""Weights that are cut over processes (FSDP2, whose parameters are DTensors) and the way back to whole ones.

Everything the loop does to weights besides the forward and backward is elementwise: masks, moments, slow weights. So
it works on each process's own rows (`local`) without a word to the others. Shards are stored by
torch.distributed.checkpoint in safetensors, never in pickles, and load on another number of processes too.
"""

import copy
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def local(tensor: Tensor) -> Tensor:
    """This process's rows of a sharded tensor, sharing its storage; a whole tensor is its own."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def locals_of(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [local(t.detach()) for t in tensors]


def is_sharded(module: nn.Module) -> bool:
    return any(isinstance(p, DTensor) for p in module.parameters())


def rows_of(whole: Tensor, parameter: Tensor) -> Tensor:
    """This process's rows of `whole`, cut as `parameter` is; no process is asked for anything."""
    if not isinstance(parameter, DTensor):
        return whole
    cut = distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return cut.to_local().clone()  # a view would keep the whole tensor alive


def skeleton(module: nn.Module) -> nn.Module:
    """A module of the same build whose weights take no memory, to be filled by `fill`; taken before sharding."""
    kept = module.state_dict().keys()  # buffers that are not saved are copied
    saved = [*module.parameters(), *(b for name, b in module.named_buffers() if name in kept)]
    memo: dict[int, Tensor] = {}
    for tensor in saved:
        empty = tensor.detach().to("meta")
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(module, memo)


def fill(empty: nn.Module, sharded: nn.Module, device: torch.device) -> nn.Module:
    """A `skeleton` with the weights of the sharded module that it was taken of. Every process must call it."""
    empty.load_state_dict({name: whole(t).detach().cpu() for name, t in sharded.state_dict().items()}, assign=True)
    return empty.train(sharded.training).to(device)


def uncut(root: nn.Module) -> None:
    """Make the module that FSDP2 wrapped last an ordinary one again, once its weights have been replaced."""
    if isinstance(root, FSDPModule):
        root.__class__ = type(root).__mro__[2]  # FSDP<Name>, FSDPModule, <Name>
        root._forward_pre_hooks.clear()
        root._forward_hooks.clear()


def whole(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor. Every process must call it, in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def largest_of_shards(value: float, tensors: Iterable[Tensor]) -> float:
    """The largest `value` of all processes if the tensors are cut; else `value`."""
    if not any(isinstance(t, DTensor) for t in tensors):
        return value
    found = torch.tensor(value, dtype=torch.float64)
    found = found.to(next(local(t).device for t in tensors))
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return found.item()


def save_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Each process writes its rows, as safetensors. Every process must call it."""
    from torch.distributed.checkpoint import save
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    folder.mkdir(parents=True, exist_ok=True)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    save({name: t.detach() for name, t in tensors.items()}, storage_writer=writer)


def shard_names(folder: Path) -> set[str]:
    """Names of the tensors that `save_shards` wrote."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    return set(HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata)


def load_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fill `tensors` in place with what `save_shards` wrote under their names; the number of processes may differ."""
    from torch.distributed.checkpoint import load
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    load({n: t.detach() for n, t in tensors.items()}, storage_reader=HuggingFaceStorageReader(str(folder)))
