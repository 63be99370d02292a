"""Save, load and hash a module's weights."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from .files import atomic
from .keys import content_key
from .sharding import gather, is_sharded


def contiguous_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return a state dict that safetensors accepts: contiguous tensors on the CPU, each storage under one name.

    Every process must call it if the module is sharded.
    """
    state, seen = {}, set()
    for name, value in module.state_dict().items():
        value = gather(value)
        key = (value.data_ptr(), value.shape)
        if value.numel() and key in seen:
            continue
        seen.add(key)
        state[name] = value.detach().contiguous().cpu()
    return state


def networks_of(model: Any) -> dict[str, nn.Module]:
    """Return the networks of a pipeline by name; of anything else that itself, under ""."""
    parts = getattr(model, "components", None)
    every = parts if isinstance(parts, dict) else {"": model}
    return {name: part for name, part in every.items() if isinstance(part, nn.Module)}


def model_digest(model: Any) -> str:
    """Return 16 hex digits that identify the weights of a network, or of all networks of a pipeline."""
    found = {name: weights_digest(part) for name, part in networks_of(model).items()}
    return found[""] if "" in found else content_key(found)


def save_weights(module: nn.Module, path: Path, write: bool = True) -> None:
    """Write the weights atomically as safetensors. Raises OSError in one line.

    Every process must call it if the module is sharded, and one of them with `write`.
    """
    if not write:
        if is_sharded(module):
            contiguous_state(module)
        return
    with atomic(path) as partial:
        save_file(contiguous_state(module), partial, metadata={"format": "pt"})


def load_weights(module: nn.Module, path: Path) -> None:
    """Load what `save_weights` wrote. Raises ValueError unless every name is there; tied weights share one name."""
    result = module.load_state_dict(load_file(path), strict=False)
    tied = set(module.state_dict()) - set(contiguous_state(module))
    if result.unexpected_keys or set(result.missing_keys) - tied:
        raise ValueError(f"{path} does not belong to this model: {result}")


def weights_digest(module: nn.Module) -> str:
    """Return 16 hex digits that identify the weights, whether they are kept in half precision or in float32."""
    digest = hashlib.sha256()
    for name, value in contiguous_state(module).items():
        digest.update(name.encode())
        value = value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
        # Flattened, because 1x1 kernels in channels_last have strides that `view` refuses.
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
