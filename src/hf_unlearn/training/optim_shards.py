"""The state of fast and slow weights as named tensors, which FSDP writes and reads shard by shard."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..common.sharding import local
from .optim import FastSlow


def named_tensors(weights: FastSlow, names: dict[int, str]) -> dict[str, Tensor]:
    """Return all state as tensors, without gathering, for `sharding.save_shards`.

    Args:
        names: the name of each parameter by its id.
    """
    found = {"mask_drift": torch.tensor([weights.mask_drift], dtype=torch.float64)}
    for part, optimizer in weights.parts():
        for i, group in enumerate(optimizer.param_groups):
            found[f"{part}.lr.{i}"] = torch.tensor([group["lr"]], dtype=torch.float64)
        for p, values in optimizer.state.items():
            found.update({f"{part}.{names[id(p)]}.{key}": value for key, value in values.items()})
    found.update({f"slow.{i}": t for i, t in enumerate(weights.slow or ())})
    return found


def load_named_tensors(
    weights: FastSlow, stored: set[str], names: dict[int, str], read: Callable[[dict], None]
) -> None:
    """Restore what `named_tensors` returned.

    Args:
        stored: the names of the stored tensors.
        names: the name of each parameter by its id.
        read: fills a dict of tensors in place, by name.
    """
    kinds = {name.split(".")[0] for name in stored} & {"forget", "learn"}
    weights.check_same_kind(sorted(kinds), "slow.0" in stored)
    for part, optimizer in weights.parts():
        for group in optimizer.param_groups:
            on_device = group.get("fused") or group.get("capturable")
            for p in group["params"]:
                prefix = f"{part}.{names[id(p)]}."
                keys = [name.removeprefix(prefix) for name in stored if name.startswith(prefix)]
                step = torch.zeros((), device=local(p).device if on_device else "cpu")
                values = {key: step if key == "step" else torch.zeros_like(p) for key in sorted(keys)}
                if values:
                    optimizer.state[p] = values
    if "slow.0" in stored:
        weights.make_slow()
    tensors = named_tensors(weights, names)
    read(tensors)
    weights.mask_drift = tensors["mask_drift"].item()
    for part, optimizer in weights.parts():
        for i, group in enumerate(optimizer.param_groups):
            group["lr"] = tensors[f"{part}.lr.{i}"].item()
