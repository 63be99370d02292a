"""What an image classifier takes: channels, height and width from its configuration, pixels from its processor."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from PIL import Image
from transformers import AutoImageProcessor

from ...common.files import write_text
from ...data.images import to_pixels

# Older versions of transformers call the two kinds of image processors slow and fast. Their slow ones, which resize by
# PIL, take no grey image without an axis of channels.
PIL_BACKEND = hasattr(transformers, "PilBackend")
COLOUR = ("perceiver", "pp_lcnet", "timm_wrapper")  # their code takes RGB, their configurations do not say so
UNUSUAL = ("imagegpt", "siglip2", "shieldgemma2")  # they take colour clusters, patches, or an image with a question


def input_channels(config: Any) -> int:
    """Return the channels of the images that a classifier takes: its own number, or that of its vision tower.

    Raises:
        ValueError: the configuration does not say it.
    """
    for part in (config, getattr(config, "vision_config", None)):
        for name in ("num_channels", "stem_num_channels"):
            found = getattr(part, name, None)
            if isinstance(found, int):
                return found
    if config.model_type in COLOUR:
        return 3
    raise ValueError(
        f"the configuration of the {config.model_type} does not say num_channels: write it into config.json"
    )


def input_sides(config: Any) -> tuple[int, int] | None:
    """Return (height, width) of the images that a classifier was made for; None if its configuration names none."""
    for part in (config, getattr(config, "vision_config", None)):
        size = getattr(part, "image_size", None)
        if isinstance(size, int):
            return size, size
        if isinstance(size, Sequence) and len(size) == 2:
            return size[0], size[1]
    return None


def has_processor(name_or_path: str, config: Any, revision: str | None = None) -> bool:
    """Whether a folder or Hub id has an image processor: in its own file, in that of a processor, or as timm does."""
    if config.model_type == "timm_wrapper":
        return True
    files = ("preprocessor_config.json", "processor_config.json")
    if Path(name_or_path).is_dir():
        return any((Path(name_or_path) / name).is_file() for name in files)
    for name in files:
        try:
            hf_hub_download(name_or_path, name, revision=revision)
            return True
        except EntryNotFoundError:
            continue
    return False


def load_processor(name_or_path: str, revision: str | None = None) -> Any:
    """Return the image processor of a folder or Hub id, the one that resizes with PIL, whatever else is installed."""
    pil = {"backend": "pil"} if PIL_BACKEND else {"use_fast": False}
    return AutoImageProcessor.from_pretrained(name_or_path, revision=revision, trust_remote_code=False, **pil)


def plain_processor(config: Any, mean: Sequence[float], std: Sequence[float]) -> Any:
    """Return an image processor: squeeze to the configuration's image_size, then (x - mean) / std with x in [0, 1].

    Args:
        mean, std: one number for each channel, or one for all.

    Raises:
        ValueError: another number of them, or a std that is not above 0.
    """
    channels = input_channels(config)
    values: dict[str, Any] = {
        "do_resize": False,
        "do_convert_rgb": channels == 3,
        "image_processor_type": "ViTImageProcessor",
    }
    for name, given in (("image_mean", mean), ("image_std", std)):
        if len(given) not in (1, channels):
            raise ValueError(
                f"{name} needs one number for each of {channels} channels, or one for all, got {len(given)}"
            )
        values[name] = [float(value) for value in given] * (channels // len(given))
    if min(values["image_std"]) <= 0:
        raise ValueError(f"image_std must be above 0, got {min(values['image_std']):g}")
    sides = input_sides(config)
    if sides is not None:
        size = {"height": sides[0], "width": sides[1]}
        values |= {"do_resize": True, "size": size, "resample": int(Image.Resampling.LANCZOS)}
    with TemporaryDirectory() as folder:
        write_text(Path(folder) / "preprocessor_config.json", json.dumps(values))
        return load_processor(folder)


def pixels_for(image: Image.Image, config: Any, processor: Any) -> torch.Tensor:
    """(C, H, W) as a classifier of this configuration takes it: by its processor, else in [-1, 1] at image_size."""
    channels = input_channels(config)
    if processor is None:
        return to_pixels(image, input_sides(config), channels)
    given: Any = image.convert("L" if channels == 1 else "RGB")
    if channels == 1 and not PIL_BACKEND:
        given = np.asarray(given)[:, :, None]
    return processor(given, return_tensors="pt")["pixel_values"][0]
