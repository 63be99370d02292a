"""What a model, a pipeline or another object is, as JSON for the key of a cache: everything that decides results."""

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Collection, Mapping, Set
from enum import Enum
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .keys import content_key
from .weights import weights_digest

# Keys of configurations that say where and when something was saved, and what it went through.
ABOUT = {"transformers_version", "unlearning_history", "name_or_path", "_name_or_path"}
STATE = {"truncation", "padding"}  # of a fast tokenizer: left there by its last call


def identity_of(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """Return the identity of a value as JSON. Equal identities give equal results, in another process too.

    Weights, tensors and tokenizers appear as hashes. Of a module count its class, its weights and their precision, its
    configuration, and how strong its adapters are. A pipeline is its parts and its own settings; any other object is
    its class and its public attributes.

    Args:
        inside: `id` of each object that this one was reached through; those are not entered again.
    """
    if isinstance(value, Enum | torch.dtype | torch.device | Path | bytes):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor | np.ndarray):
        return tensor_digest(torch.as_tensor(value))
    if isinstance(value, type | FunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    if id(value) in inside:
        return "above"
    inside = (*inside, id(value))
    if isinstance(value, Mapping):
        return [[identity_of(k, inside), identity_of(v, inside)] for k, v in value.items()]
    if isinstance(value, Set):
        return sorted(json.dumps(identity_of(v, inside)) for v in value)
    if isinstance(value, list | tuple):
        return [identity_of(v, inside) for v in value]
    return {"class": identity_of(type(value)), **_of_object(value, inside)}


def _of_object(value: Any, inside: tuple[int, ...]) -> dict[str, Any]:
    if isinstance(value, nn.Module):
        return _of_module(value, inside)
    if isinstance(getattr(value, "components", None), dict):  # a pipeline
        config = _config(value, inside, leave_out=set(value.components))
        return {"config": config, **{name: identity_of(part, inside) for name, part in value.components.items()}}
    if dataclasses.is_dataclass(value):
        return {f.name: identity_of(getattr(value, f.name), inside) for f in dataclasses.fields(value)}
    if isinstance(getattr(value, "config", None), Mapping):  # a scheduler
        return {"config": _config(value, inside)}
    if hasattr(value, "save_pretrained"):  # a tokenizer or a processor
        return {"files": _saved(value)}
    return _attributes(value, inside) if hasattr(value, "__dict__") else {"value": repr(value)}


def _of_module(module: nn.Module, inside: tuple[int, ...]) -> dict[str, Any]:
    """A library's network; or, if it has no configuration, one of our own: its attributes, parts and buffers too."""
    shapes = {name: [str(value.dtype), *value.shape] for name, value in module.state_dict().items()}
    layers = [(n, m) for n, m in module.named_modules() if isinstance(getattr(m, "scaling", None), dict)]
    found: dict[str, Any] = {
        "weights": weights_digest(module),
        "shapes": content_key(shapes),
        # Which of peft's adapters are active and how strong: neither is among the weights.
        "adapters": {n: [list(getattr(m, "active_adapters", ())), identity_of(m.scaling)] for n, m in layers},
    }
    if hasattr(module, "config"):
        return {**found, "config": _config(module, inside)}
    children = {name: identity_of(child, inside) for name, child in module.named_children()}
    buffers = {name: tensor_digest(buffer) for name, buffer in module.named_buffers()}  # those that are not saved too
    return {**found, **_attributes(module, inside), **children, "buffers": buffers}


def _attributes(value: Any, inside: tuple[int, ...]) -> dict[str, Any]:
    public = {name: v for name, v in vars(value).items() if not name.startswith("_") and name != "training"}
    return {name: identity_of(v, inside) for name, v in public.items()}


def _config(owner: Any, inside: tuple[int, ...], leave_out: Collection[str] = ()) -> Any:
    config = owner.config.to_dict() if hasattr(owner.config, "to_dict") else owner.config
    if not isinstance(config, Mapping):
        return identity_of(config, inside)
    kept = {str(k): v for k, v in config.items() if k not in ABOUT and k not in leave_out}
    return {k: identity_of(v, inside) for k, v in sorted(kept.items()) if not k.startswith("_")}


def _saved(part: Any) -> dict[str, str]:
    """Hashes of the files that a tokenizer or processor saves, without what its last call left in them."""
    with tempfile.TemporaryDirectory() as folder:
        part.save_pretrained(folder)
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): _file(path) for path in paths}


def _file(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".json":
        read = json.loads(content)
        if isinstance(read, dict):
            content = json.dumps({k: v for k, v in read.items() if k not in STATE | ABOUT}, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def tensor_digest(value: Tensor) -> str:
    """Return 16 hex digits that identify a tensor: its shape, its type and its numbers."""
    digest = hashlib.sha256(f"{tuple(value.shape)} {value.dtype}".encode())
    digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def file_digest(path: str | Path) -> list[int | str]:
    """Return [size in bytes, SHA-256] of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return [Path(path).stat().st_size, digest.hexdigest()]
