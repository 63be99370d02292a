"""Change the weights of a copy of a text-to-image model under attack, without training."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..families import denoiser_of
from .base import Found, Subject
from .pictures import ask, drawing_of, shallow


def trained_parts(pipeline: Any) -> tuple[str, ...]:
    """Names of the parts that unlearning may have changed."""
    return denoiser_of(pipeline).part, "text_encoder", "text_encoder_2"


def changed(pipeline: Any, change: Callable[[str, str, Tensor], Tensor]) -> Any:
    """A pipeline whose weights are `change(part, name, weight)`; the first one keeps its own.

    The parts are those of `trained_parts`; only parameters are changed, no buffers.
    """
    parts: dict[str, nn.Module] = {}
    for part in trained_parts(pipeline):
        network = getattr(pipeline, part, None)
        if network is not None:
            parts[part] = copy.deepcopy(network)
            with torch.no_grad():
                for name, parameter in parts[part].named_parameters():
                    parameter.copy_(change(part, name, parameter))
    return shallow(pipeline, **parts)


def asked_of(pipeline: Any, subject: Subject, seed: int) -> Found:
    """What the subject's reader finds in images that another pipeline draws of the subject's prompts."""
    prompts = [str(prompt) for prompt in subject.asked]
    return Found(subject.read(ask(pipeline, prompts, drawing_of(subject), seed)))
