"""The frozen original in host memory: a part of it comes to the device when its forward runs, and leaves after it."""

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import nn


def offload(original: nn.Module, trained: nn.Module, device: torch.device) -> None:
    """Keep what `original` holds besides `trained` on the host; weights that both hold stay where they are.

    Costs one transfer of these weights in each forward. Does nothing where it was done before.
    """
    shared = {id(p) for p in trained.parameters()}
    for module in original.modules():
        own = [p for p in module.parameters(recurse=False) if id(p) not in shared]
        if own and not hasattr(module, "_hf_hook"):
            add_hook_to_module(module, AlignDevicesHook(device, offload=True))
