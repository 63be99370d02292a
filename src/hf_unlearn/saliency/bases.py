"""Frozen weights under an adapter in half precision, or quantised by bitsandbytes; the factors stay in fp32."""

from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ..common.precisions import NAMES, precision_name, take_any

BasePrecision = Literal["fp32", "bf16", "fp16", "nf4", "int8"]
QUANTISED = ("nf4", "int8")


def check_base(precision: str, merge: bool = False) -> None:
    """Raise ValueError, with what to set, unless weights can be kept in this precision here."""
    if precision not in get_args(BasePrecision):
        raise ValueError(f"base_precision must be one of {', '.join(get_args(BasePrecision))}, got {precision!r}")
    if precision != "fp32" and merge:
        raise ValueError(f"merge needs all weights in full, and base_precision is {precision}: leave one of them out")
    if precision in QUANTISED and find_spec("bitsandbytes") is None:
        raise ValueError(f"base_precision {precision} needs bitsandbytes: pip install 'hf-unlearn[quantised]'")


def lower_base(network: nn.Module, precision: str) -> None:
    """Keep the frozen weights of a network with an adapter in `precision`, in place.

    Quantised are the linear layers of its blocks, whose names have a number; everything else that is frozen is then in
    bf16. NF4 (QLoRA, arXiv 2305.14314) takes half a byte a weight and int8 (LLM.int8, arXiv 2208.07339) one. Batch
    statistics stay in fp32. The network then takes tensors of any precision and returns that of its sample.

    Args:
        precision: one that `check_base` lets pass.
    """
    check_base(precision)
    if precision == precision_name(network) == "fp32":
        return
    half = next((dtype for name, dtype in NAMES.items() if name == precision), torch.bfloat16)
    if precision in QUANTISED:
        _quantise(network, precision, half)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) or _is_quantised(module):
            continue
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point() and not tensor.requires_grad:
                tensor.data = tensor.data.to(half)
    for p in network.parameters():
        if p.requires_grad:  # peft gives factors the precision of their layer
            p.data = p.data.float()
    take_any(network)


def base_bytes(network: nn.Module, precision: str) -> int:
    """Bytes of the frozen weights of a network once they are kept in `precision`."""
    each = {"fp32": 4.0, "nf4": 0.52, "int8": 1.01}  # with a scale for each 64 weights, or for each row
    low = {id(layer.weight) for _, layer in _blocks(network)} if precision in QUANTISED else set()
    frozen = [p for p in network.parameters() if not p.requires_grad]
    return int(sum(p.numel() * each.get(precision if id(p) in low or precision == "fp32" else "", 2) for p in frozen))


def _blocks(network: nn.Module) -> list[tuple[str, nn.Linear]]:
    """The frozen linear layers of the network's blocks, with their names."""
    linear = [(name, module) for name, module in network.named_modules() if type(module) is nn.Linear]
    named = [(name, layer) for name, layer in linear if any(part.isdigit() for part in name.split("."))]
    return [(name, layer) for name, layer in named if not layer.weight.requires_grad]


def _is_quantised(module: nn.Module) -> bool:
    return type(module).__module__.startswith("bitsandbytes.")


def _quantise(network: nn.Module, precision: str, half: torch.dtype) -> None:
    """Replace the linear layers of the network's blocks."""
    for name, module in _blocks(network):
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, _quantised(module, precision, half))


def _quantised(layer: nn.Linear, precision: str, half: torch.dtype) -> nn.Module:
    from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit

    sizes = (layer.in_features, layer.out_features, layer.bias is not None)
    weight, device, made = layer.weight.detach(), layer.weight.device, None
    if precision == "nf4":
        made = Linear4bit(*sizes, compute_dtype=half, quant_type="nf4", device="meta")
        made.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", module=made)
        made.support_avx512bf16_for_cpu = False  # whose packed weights have no backward pass
    else:
        made = Linear8bitLt(*sizes, has_fp16_weights=False, device="meta")
        made.weight = Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    made.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().to(half), False)
    return made.to(device).train(layer.training)


def shared_memo(network: nn.Module) -> dict[int, Any]:
    """The memo for `copy.deepcopy` by which a copy of a network shares its weights, also quantised ones."""
    memo: dict[int, Any] = {id(p): p for p in network.parameters()}
    for module in filter(_is_quantised, network.modules()):
        held = (getattr(module, name, None) for name in ("state", "quant_state"))
        memo |= {id(part): part for part in held if part is not None}
    return memo


def factors_in_full(network: nn.Module) -> list[nn.Parameter]:
    """Bring the factors of a network's adapters to fp32. Return those that were not."""
    layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
    base = {id(p) for layer in layers for p in layer.get_base_layer().parameters()}
    low = [p for layer in layers for p in layer.parameters() if id(p) not in base and p.dtype != torch.float32]
    for p in low:
        p.data = p.data.float()
    return low
