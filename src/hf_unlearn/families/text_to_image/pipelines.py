"""The adapters of text-to-image pipelines by the names of their classes."""

from typing import Any

from torch import nn

from ..base import class_names
from .denoiser import Denoiser
from .flux import Flux
from .flux2 import Flux2Klein
from .pixart import PixArtSigma
from .qwen import QwenImage
from .sana import Sana
from .sd import StableDiffusion, StableDiffusionXL
from .sd3 import StableDiffusion3

CLASSES = (StableDiffusion, StableDiffusionXL, StableDiffusion3, Flux, Flux2Klein, Sana, QwenImage, PixArtSigma)
DENOISERS: dict[str, Denoiser] = {name: kind() for kind in CLASSES for name in kind.pipelines}
PIPELINES = tuple(DENOISERS)
NETWORKS = {kind.network_class for kind in CLASSES}


def denoiser_of(pipeline: Any) -> Denoiser:
    """The adapter of a pipeline. Raises ValueError where there is none."""
    found = next((DENOISERS[name] for name in DENOISERS if name in class_names(pipeline)), None)
    if found is None:
        raise ValueError(f"{type(pipeline).__name__} is not supported: give a {listed(PIPELINES)}")
    return found


def sampled_as(pipeline: Any) -> Denoiser:
    """The adapter of a pipeline that is only drawn from: of one that starts from images too."""
    name = type(pipeline).__name__.replace("Img2Img", "")
    return DENOISERS[name] if name in DENOISERS else denoiser_of(pipeline)


def denoiser_of_network(network: nn.Module) -> Denoiser | None:
    """The adapter of a bare network, the first one where pipelines share its class; None for those of no pipeline."""
    names = class_names(network)
    return next((adapter for adapter in DENOISERS.values() if adapter.network_class in names), None)


def trained_names(network: nn.Module, train_method: str) -> set[str]:
    """Names of the parameters that a `train_method` trains. Raises ValueError for a network of no pipeline."""
    adapter = denoiser_of_network(network)
    if adapter is None:
        raise ValueError(f"{type(network).__name__} is the network of no text-to-image pipeline")
    return adapter.trained(network, train_method)


def text_side(network: nn.Module) -> tuple[str, ...]:
    """Words in the names of the layers through which text enters the attention of a network; none for others."""
    adapter = denoiser_of_network(network)
    return () if adapter is None else adapter.text_side


def side_of(pipeline: Any, resolution: int | None = None) -> int:
    """Height and width in pixels of what is drawn: the resolution, or the model's own size."""
    adapter = sampled_as(pipeline)
    return resolution or adapter.shape(pipeline)[-1] * adapter.factor(pipeline)


def listed(names: tuple[str, ...]) -> str:
    """Names in words: "a, b or c"."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
