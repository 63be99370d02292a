"""The precision in which a module is stored, in which it computes, and in which it is given tensors."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from .weights import networks_of

Name = Literal["fp32", "bf16", "fp16"]
NAMES: dict[Name, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LARGE = 2_000_000_000  # numbers of text encoders that are not written in float32 where they came in half precision
HALF = (torch.bfloat16, torch.float16)
OF_FILES = {"BF16": torch.bfloat16, "F16": torch.float16}  # other precisions are read as float32


def name_of(dtype: torch.dtype) -> Name:
    """The word for a precision; fp32 for any other."""
    return next((name for name, known in NAMES.items() if known == dtype), "fp32")


# ---- files -----------------------------------------------------------------------------------
def precision_of_files(files: Iterable[Path]) -> torch.dtype:
    """The half precision in which most numbers of safetensors files are stored, else float32. Headers alone are
    read."""
    counts: dict[str, int] = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                part = file.get_slice(name)
                numbers = torch.Size(part.get_shape()).numel()
                counts[part.get_dtype()] = counts.get(part.get_dtype(), 0) + numbers
    most = max(counts, key=lambda kind: counts[kind], default="F32")
    return OF_FILES.get(most, torch.float32)


def precision_of_tensors(tensors: Iterable[Tensor]) -> torch.dtype:
    """The half precision of most numbers of some tensors, else float32."""
    counts: dict[torch.dtype, int] = {}
    for tensor in tensors:
        counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.numel()
    most = max(counts, key=lambda kind: counts[kind], default=torch.float32)
    return most if most in HALF else torch.float32


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The safetensors files that `from_pretrained` reads of a part's folder."""
    found = sorted(folder.glob("*.safetensors"))
    own = [path for path in found if variant is not None and f".{variant}." in path.name.replace("-", ".")]
    plain = [path for path in found if path.name.count(".") == 1]
    return own or plain


# ---- what a part was stored in ---------------------------------------------------------------
def note_stored(module: nn.Module, dtype: torch.dtype) -> None:
    """Note the precision of the files that a module came from: it is written in that again."""
    vars(module)["stored_precision"] = dtype


def stored_precision(module: nn.Module) -> torch.dtype | None:
    """What `note_stored` noted; None for a module that is written as it is: one that was built or loaded by others."""
    return vars(module).get("stored_precision")


def too_large_in_full(model: Any) -> bool:
    """Whether the text encoders of a pipeline are written in half precision where they came so: T5-XXL and its like.

    diffusers loads its own parts in float32 unless it is told otherwise, and transformers' parts as they are stored.
    So a pipeline whose encoders are in half precision draws nothing after a plain `from_pretrained`. They are
    written in float32 therefore, unless that is more than LARGE numbers, which nobody loads without a precision.
    """
    encoders = [part for part in networks_of(model).values() if isinstance(part, PreTrainedModel)]
    return sum(p.numel() for part in encoders for p in part.parameters()) > LARGE


@contextmanager
def as_stored(model: Any, one_file: bool = False) -> Iterator[None]:
    """Inside, the networks of a pipeline, or one alone, have the precision that they are written in, then that which
    they had: diffusers' parts that of the files that they came from, text encoders float32 unless they are
    `too_large_in_full`, or all is written to one file, which readers load in one precision.

    Weights that were trained in float32 stay rounded: what is in memory is what was written.
    """
    in_full = () if one_file or too_large_in_full(model) else PreTrainedModel
    changed = []
    for part in networks_of(model).values():
        stored, before = stored_precision(part), precision_of(part)
        dtype = torch.float32 if stored and isinstance(part, in_full) else stored
        if dtype and dtype != before:
            changed.append((part, dtype, before))
    for part, dtype, _ in changed:
        bring_to(part, dtype)
    try:
        yield
    finally:
        for part, _, before in changed:
            bring_to(part, before)


@torch.no_grad()
def round_to_stored(module: nn.Module) -> None:
    """Round the weights of a module to the precision in which they are written."""
    dtype = stored_precision(module)
    if dtype in HALF:
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.dtype == torch.float32:
                tensor.copy_(tensor.to(dtype))


def bring_to(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast a module; diffusers' own `to` warns of layers to be kept in float32 where there are none."""
    nn.Module.to(module, dtype)


# ---- what a part computes in -----------------------------------------------------------------
def precision_of(module: nn.Module) -> torch.dtype:
    """The precision of most floating-point weights of a module, of the frozen ones if there are any: that in which it
    computes."""
    floating = [p for p in module.parameters() if p.is_floating_point()]
    return precision_of_tensors([p for p in floating if not p.requires_grad] or floating)


def precision_name(module: nn.Module) -> Name:
    """The same as a word."""
    return name_of(precision_of(module))


def takes_any(module: nn.Module) -> bool:
    """Whether a module takes tensors of any precision (`take_any`)."""
    return "given_precision" in vars(module)


def take_any(network: nn.Module) -> None:
    """Have a network compute in the precision of its weights whatever it is given, and return that of its sample: of
    the first tensor with more than one axis. Timesteps and scales, one a sample, would lose too much and stay."""
    if not takes_any(network):
        vars(network)["given_precision"] = torch.float32
        network.register_forward_pre_hook(_enter, with_kwargs=True)
        network.register_forward_hook(_leave)


def in_full(network: nn.Module) -> None:
    """Bring a network that takes tensors of any precision to float32, to be trained. Others stay as they are given."""
    if takes_any(network) and precision_of(network) in HALF:
        network.float()


def decode_any(vae: nn.Module) -> None:
    """Have the parts of an autoencoder take tensors of any precision: pipelines call no `forward` of it."""
    for part in vae.children():
        part.register_forward_pre_hook(_cast_to_own)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() and value.ndim > 1 else value
    return {k: _cast(v, dtype) for k, v in value.items()} if isinstance(value, dict) else value


def _enter(network: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    given = (v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.is_floating_point() and v.ndim > 1)
    vars(network)["given_precision"] = next((value.dtype for value in given), torch.float32)
    dtype = precision_of(network)
    return tuple(_cast(value, dtype) for value in args), {name: _cast(value, dtype) for name, value in kwargs.items()}


def _leave(network: nn.Module, args: tuple, output: Any) -> Any:
    return _returned(output, vars(network)["given_precision"])


def _returned(output: Any, dtype: torch.dtype) -> Any:
    """Tensors of an output in another precision; an output is a tensor, a tuple or a mapping of a library's class."""
    if isinstance(output, Tensor):
        return output.to(dtype) if output.is_floating_point() else output
    if isinstance(output, tuple | list):
        return type(output)(_returned(value, dtype) for value in output)
    if isinstance(output, dict):
        return type(output)(**{name: _returned(value, dtype) for name, value in output.items()})
    return output


def _cast_to_own(module: nn.Module, args: tuple) -> tuple:
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)
    return args if dtype is None else tuple(_cast(value, dtype) for value in args)
