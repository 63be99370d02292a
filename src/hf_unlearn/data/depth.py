"""Images of 16 and 32 bits a pixel as 8-bit ones: Pillow's own conversion clips them to black and white."""

import numpy as np
from PIL import Image

BITS_PER_SAMPLE, SAMPLE_FORMAT = 258, 339  # tags of TIFF; format 1 is unsigned, 2 signed
TOPS_OF_FLOATS = (1.0, 255.0, 65535.0)  # what white is in files of floating-point numbers


def eight_bit(image: Image.Image, name: str = "the image") -> Image.Image:
    """Return an image of mode I;16, I or F as grey in 8 bits, with its full range from black to white; others as they
    are.

    16-bit pixels reach to 65535. Pixels of 32 bits do not say how far they reach: floating-point numbers are taken
    to end at 1, 255 or 65535, integers at 255, 65535 or their type's largest number, the first that holds them all.

    Raises:
        ValueError: a pixel is negative, not finite, or larger than all of these.
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image)
    tags = getattr(image, "tag_v2", None) or {}
    signed = 1 not in tuple(tags.get(SAMPLE_FORMAT, (2,)))
    if image.mode == "I" and not signed:
        pixels = pixels.view(np.uint32)  # Pillow reads them as signed
    values = pixels.astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(f"{name} has pixels that are negative or not finite: save it with 8 or 16 bits")
    top = _white(image, tags, signed, values.max())
    if values.max() > top:
        raise ValueError(
            f"{name} has pixels up to {values.max():g}, white is {top:g} at most: save it with 8 or 16 bits"
        )
    return Image.fromarray(np.round(values * (255 / top)).astype(np.uint8))


def _white(image: Image.Image, tags: dict, signed: bool, highest: float) -> float:
    """The value of white."""
    if image.mode == "F":
        return next((top for top in TOPS_OF_FLOATS if highest <= top), TOPS_OF_FLOATS[-1])
    if image.mode != "I" or image.format in ("PNG", "PPM"):  # whose integers have 16 bits at most
        return 65535.0
    bits = tuple(tags.get(BITS_PER_SAMPLE, (32,)))[0]
    largest = 2.0 ** (bits - signed) - 1
    return next((top for top in (255.0, 65535.0) if bits > 16 and highest <= top), largest)
