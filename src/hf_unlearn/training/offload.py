"""Keep the frozen original in host memory: each part moves to the device for its forward pass and back."""

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import nn


def offload(original: nn.Module, trained: nn.Module, device: torch.device) -> None:
    """Keep the weights of `original` on the host, except those that it shares with `trained`.

    Each forward pass transfers these weights once. Parts that are offloaded already are left alone.
    """
    shared = {id(p) for p in trained.parameters()}
    for module in original.modules():
        own = [p for p in module.parameters(recurse=False) if id(p) not in shared]
        if own and not hasattr(module, "_hf_hook"):
            add_hook_to_module(module, AlignDevicesHook(device, offload=True))
