"""Activation checkpointing of a network of diffusers or transformers: whether it can, on, and off for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def checkpointable(network: nn.Module) -> bool:
    """Whether a network can compute its activations again in the backward pass."""
    names = ("supports_gradient_checkpointing", "_supports_gradient_checkpointing")  # transformers, diffusers
    return any(getattr(network, name, False) for name in names)


def enable_checkpointing(network: Any, **kwargs: Any) -> None:
    """Have a network keep few activations and compute them again. It must be `checkpointable`."""
    given = {k: v for k, v in kwargs.items() if v is not None}
    if hasattr(network, "enable_gradient_checkpointing"):
        network.enable_gradient_checkpointing()  # of diffusers, which takes none of these arguments
    elif hasattr(network, "activation_checkpointing_enable"):
        network.activation_checkpointing_enable(**given)
    else:
        network.gradient_checkpointing_enable(**given)


@contextmanager
def keeping_activations(network: Any) -> Iterator[None]:
    """Switch activation checkpointing off inside, with what transformers hooks into the embeddings for it."""
    on = [module for module in network.modules() if getattr(module, "gradient_checkpointing", False) is True]
    hooked = bool(on) and hasattr(network, "_require_grads_hook")
    for module in on:
        module.gradient_checkpointing = False
    if hooked:
        network.disable_input_require_grads()
    try:
        yield
    finally:
        for module in on:
            module.gradient_checkpointing = True
        if hooked:
            network.enable_input_require_grads()
