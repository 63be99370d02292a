"""Between data sets, generators and files: images in [-1, 1], and the bytes that are written."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from ..data.images import to_pixels
from ..data.joining import under
from ..data.protocols import SizedDataset
from ..families.classifier.load import ProcessedImages

END = b"IEND\xaeB`\x82"  # of every PNG file
TOLD = "hf_unlearn"  # the text of a PNG file that holds its row of metadata.jsonl


def picture_at(dataset: SizedDataset, i: int, size: tuple[int, int], channels: int) -> Tensor:
    """Return image `i` as a generator takes it, (C, H, W) in [-1, 1].

    Images that a processor makes ready for a classifier come from their files; those of other data sets are in
    [-1, 1] as they are, as every data set of images is here.

    Args:
        size, channels: of the generator's images. An image of another size is squeezed to it.

    Raises:
        ValueError: pixels lie outside of [-1, 1].
    """
    held, place = under(dataset, i)
    if isinstance(held, ProcessedImages):
        return to_pixels(held.picture(place), size, channels)
    pixels = torch.as_tensor(held[place]["pixel_values"]).float()
    if pixels.abs().max() > 1 + 1e-4:
        raise ValueError(
            f"image {i} has pixels from {float(pixels.min()):.3g} to {float(pixels.max()):.3g}, a generator takes "
            "[-1, 1]: give the images before they are normalised, or a data set of files"
        )
    if tuple(pixels.shape) == (channels, *size):
        return pixels
    return to_pixels(image_of(pixels), size, channels)


def source_of(dataset: SizedDataset, i: int) -> dict[str, Any]:
    """Return what says which sample this is: its position in the data as they were read, and its file, if any."""
    held, place = under(dataset, i)
    if not isinstance(held, ProcessedImages):
        return {"source": place}
    path = held.path(place)
    file = {} if path is None else {"source_image": "/".join(Path(path).parts[-2:])}  # its folder may be its class
    return {"source": held.positions[place], **file}


def image_of(pixels: Tensor) -> Image.Image:
    """Return pixels (C, H, W) in [-1, 1] as an 8-bit image."""
    levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else np.ascontiguousarray(levels))


def png_of(pixels: Tensor, row: dict[str, Any]) -> bytes:
    """Return a PNG file of pixels (C, H, W) in [-1, 1] that carries `row`, with a hash of the pixels, as text."""
    image, about = image_of(pixels), PngImagePlugin.PngInfo()
    about.add_text(TOLD, json.dumps({**row, "pixels": digest_of(image)}, sort_keys=True))
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=about)
    return file.getvalue()


def read_png(content: bytes) -> dict[str, Any] | None:
    """Return the row that a file of `png_of` carries; None for anything else, also where its pixels are others."""
    if not content.endswith(END):
        return None
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        row = json.loads(image.text[TOLD])  # type: ignore[attr-defined]  # of a PNG
    except (OSError, SyntaxError, ValueError, KeyError, AttributeError):
        return None
    return row if isinstance(row, dict) and row.get("pixels") == digest_of(image) else None


def pixels_of(content: bytes, channels: int) -> Tensor:
    """Return the image of a PNG file, (C, H, W) in [-1, 1]."""
    return to_pixels(Image.open(io.BytesIO(content)), None, channels)


def digest_of(image: Image.Image) -> str:
    """Return 16 hex digits that identify an image's size, mode and pixels."""
    return hashlib.sha256(f"{image.size} {image.mode}".encode() + image.tobytes()).hexdigest()[:16]
