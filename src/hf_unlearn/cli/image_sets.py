"""From the data flags of UNets and DiTs to forget and retain sets."""

from collections.abc import Sequence
from typing import Any

from ..data.images import digits
from ..data.pairs import forget_and_retain
from ..data.protocols import SizedDataset
from ..data.sources import load_images, stream_images
from ..data.streaming import RetainStream
from ..families.latents import encode_images
from .flags import ImageDataFlags


def image_sets(data: ImageDataFlags, size: int | Sequence[int], channels: int) -> tuple[Any, Any]:
    """Return (forget, retain) images as the flags say, of `size` (one number, or height and width) unless they give a
    resolution.

    Raises:
        ValueError: no data is named, or what loading and splitting raise.
    """
    if data.source is None:
        raise ValueError("no data: set --train_data_dir or --dataset_name to the images the model was trained on")
    columns = dict(image_column=data.image_column, label_column=data.label_column, center_crop=data.center_crop)
    options: dict[str, Any] = dict(size=data.resolution or size, channels=channels, **columns)
    if data.streaming and data.forget_data_dir:
        streamed = stream_images(data.source, config_name=data.dataset_config_name, **options)
        return load_images(data.forget_data_dir, **options), RetainStream(streamed)
    everything = load_images(data.source, config_name=data.dataset_config_name, **options)
    chosen = load_images(data.forget_data_dir, **options) if data.forget_data_dir else None
    return forget_and_retain(everything, data.forget_class, data.forget_indices, chosen)


def unet_sets(data: ImageDataFlags, pipeline: Any, default: bool) -> tuple[Any, Any]:
    """Return (forget, retain) images for a UNet2D pipeline. For the shipped one (`default`) these are the digits, of
    which it forgets the 3 where the flags do not say."""
    if data.source is None and default:
        if not data.says_what:
            data.forget_class = [3]
        return forget_and_retain(digits(), data.forget_class, data.forget_indices)
    return image_sets(data, pipeline.unet.config.sample_size, pipeline.unet.config.in_channels)


def latent_sets(
    data: ImageDataFlags, pipeline: Any, cache: str, flips: bool = False, device: Any = "cpu"
) -> tuple[SizedDataset, SizedDataset]:
    """Return (forget, retain) latents for a DiTPipeline, encoded once and kept in `cache`; its VAE ends on the CPU."""
    images = decoded_sets(data, pipeline)
    pipeline.vae.to(device)
    forget, retain = (encode_images(pipeline.vae, part, cache, flips=flips) for part in images)
    pipeline.vae.to("cpu")
    return forget, retain


def decoded_sets(data: ImageDataFlags, pipeline: Any) -> tuple[Any, Any]:
    """Return (forget, retain) images as a DiTPipeline's VAE gives them."""
    pixels = pipeline.transformer.config.sample_size * 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    if data.streaming:
        raise ValueError("--streaming is for pixels: latents are encoded once and kept")
    return image_sets(data, pixels, pipeline.vae.config.in_channels)
