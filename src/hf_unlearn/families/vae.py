"""From images to latents and back, as each class of autoencoder scales them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from ..common.precisions import bring_to


def posterior_mean(vae: Any, images: Tensor) -> Tensor:
    """Latents (B, c, h, w) of images (B, C, H, W) in [-1, 1]: the posterior's mean, scaled as the network sees it.

    An AutoencoderDC has no posterior. Those of Flux 2 are put together from patches of 2 x 2 and normalised by the
    autoencoder's batch statistics; those of Qwen-Image by a mean and a spread for each channel.
    """
    config = vae.config
    with _in_range(vae):
        images = images.to(vae.dtype)
        encoded = vae.encode(images.unsqueeze(2) if "z_dim" in config else images)
    if isinstance(vae, AutoencoderTiny):
        mean = encoded.latents
    else:
        mean = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mode()
    if "z_dim" in config:  # of videos: an image is one frame
        mean = mean[:, :, 0]
    elif hasattr(vae, "bn"):
        mean = pixel_unshuffle(mean, 2)
    return scaled(vae, mean)


@contextmanager
def _in_range(vae: Any) -> Iterator[None]:
    """Have an autoencoder compute in float32 inside, if it is kept in float16 and says that it overflows there."""
    overflows = vae.dtype == torch.float16 and vae.config.get("force_upcast", False)
    if overflows:
        bring_to(vae, torch.float32)
    try:
        yield
    finally:
        if overflows:
            bring_to(vae, torch.float16)


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """Images (B, C, H, W), about in [-1, 1], of latents (B, c, h, w) that are scaled as `posterior_mean` does it."""
    with _in_range(vae):
        plain = unscaled(vae, latents).to(vae.device, vae.dtype)
        if "z_dim" in vae.config:
            return vae.decode(plain.unsqueeze(2)).sample[:, :, 0]
        return vae.decode(pixel_shuffle(plain, 2) if hasattr(vae, "bn") else plain).sample


def side_factor(vae: Any) -> int:
    """How many pixels a side of a latent covers: a convolutional autoencoder halves it between its blocks."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def scaled(vae: Any, latents: Tensor) -> Tensor:
    """Latents as the network sees them; of Flux 2 in patches already."""
    statistics = _statistics(vae, latents)
    if statistics is not None:
        return (latents - statistics[0]) / statistics[1]
    return (latents - (vae.config.get("shift_factor") or 0.0)) * vae.config.scaling_factor


def unscaled(vae: Any, latents: Tensor) -> Tensor:
    """The opposite of `scaled`."""
    statistics = _statistics(vae, latents)
    if statistics is not None:
        return latents * statistics[1] + statistics[0]
    return latents / vae.config.scaling_factor + (vae.config.get("shift_factor") or 0.0)


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor] | None:
    """(mean, spread) of the channels, (1, c, 1, 1) each, of an autoencoder that normalises by them."""
    config = vae.config
    if "z_dim" in config:
        mean, spread = torch.tensor(config.latents_mean), torch.tensor(config.latents_std)
    elif hasattr(vae, "bn"):
        mean, spread = vae.bn.running_mean, (vae.bn.running_var + config.batch_norm_eps).sqrt()
    else:
        return None
    return tuple(part.view(1, -1, 1, 1).to(like) for part in (mean, spread))  # type: ignore[return-value]
