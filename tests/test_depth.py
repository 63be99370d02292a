"""Images of 16 and 32 bits come in with their full range, wherever images are read."""

import io

import datasets
import numpy as np
import pytest
from conftest import tiny_vit
from PIL import Image

from hf_unlearn.data.images import ImageDataset, open_image, to_pixels
from hf_unlearn.families.classifier.load import ProcessedImages

RAMP = np.linspace(0, 1, 64).reshape(8, 8)
DEEP = {
    "16-bit png": (np.uint16, 65535, "PNG"),
    "16-bit tiff": (np.uint16, 65535, "TIFF"),
    "16-bit pgm": (np.uint16, 65535, "PPM"),
    "32-bit tiff": (np.int32, 2**31 - 1, "TIFF"),
    "16 bits in 32": (np.int32, 65535, "TIFF"),
    "8 bits in 32": (np.int32, 255, "TIFF"),
    "float to 1": (np.float32, 1, "TIFF"),
    "float to 255": (np.float32, 255, "TIFF"),
    "float to 65535": (np.float32, 65535, "TIFF"),
}


def stored(pixels: np.ndarray, kind: str) -> dict:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return {"bytes": content.getvalue(), "path": None}


@pytest.mark.parametrize("name", DEEP)
def test_the_full_range_is_read(name):
    kind, top, suffix = DEEP[name]
    pixels = (RAMP * top).round().astype(kind) if top > 1 else RAMP.astype(kind)
    image = open_image(stored(pixels, suffix), name)
    assert image.mode == "L"
    for channels in (1, 3):
        assert np.abs((to_pixels(image, 8, channels)[0].numpy() + 1) / 2 - RAMP).max() < 1 / 255
    assert np.abs((to_pixels(Image.fromarray(pixels), 8, 1)[0].numpy() + 1) / 2 - RAMP).max() < 1 / 255


def test_a_dark_16_bit_image_stays_dark():
    image = open_image(stored(np.full((8, 8), 200, dtype=np.uint16), "PNG"), "dark")
    assert image.getextrema() == (1, 1)


def test_both_data_sets_read_them():
    rows = datasets.Dataset.from_dict(
        {"image": [stored((RAMP * 65535).astype(np.uint16), "PNG")] * 2, "label": [0, 1]}
    )
    rows = rows.cast_column("image", datasets.Image())
    for data in (ImageDataset(rows, 8, 1, label_column="label"), ProcessedImages(rows, tiny_vit(), None)):
        assert np.abs((data[0]["pixel_values"][0].numpy() + 1) / 2 - RAMP).max() < 1 / 255


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (RAMP.astype(np.float32) * 2 - 1, "negative or not finite"),
        (np.full((2, 2), np.nan, dtype=np.float32), "negative or not finite"),
        (np.full((2, 2), -5, dtype=np.int32), "negative or not finite"),
        (np.full((2, 2), 1e6, dtype=np.float32), "pixels up to 1e.06, white is 65535 at most"),
    ],
)
def test_a_range_that_is_not_known_is_named(pixels, says):
    with pytest.raises(ValueError, match=f"odd.tif has .*{says}"):
        open_image(stored(pixels, "TIFF"), "odd.tif")
