"""Image data sets in the models' input format: tensors in memory or rows of a `datasets.Dataset`."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import Dataset, Subset

from .class_names import stored_names
from .depth import eight_bit
from .protocols import SizedDataset

DIGITS = Path(__file__).parents[1] / "assets/digits/digits.npz"


class LabelledDataset(Dataset):
    """Images whose labels and stored content can be read without decoding or transforming an image."""

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def labels(self) -> list[int] | None:
        """The class of each sample, or None for data without labels."""
        raise NotImplementedError

    def stored_bytes(self, positions: Sequence[int]) -> Iterator[bytes]:
        """Yield the stored form of the images at `positions`: tensors, files or encoded bytes."""
        raise NotImplementedError


def open_image(stored: dict[str, Any], name: str) -> Image.Image:
    """Decode an image stored as {"bytes": ..., "path": ...}, read it to its end and bring it to 8 bits.

    Raises:
        ValueError: the image `name` is broken, has a range that is not known (`eight_bit`), or has more pixels than
            Pillow's `MAX_IMAGE_PIXELS`. Pillow itself only warns up to twice that number.
    """
    import datasets

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = datasets.Image().decode_example(stored)
            image.load()
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ValueError(f"{name} has too many pixels: {' '.join(str(error).split())}") from error
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for broken files
            raise ValueError(f"{name} is not a readable image") from error
    return eight_bit(image, name)


def image_name(stored: dict[str, Any] | None, position: int) -> str:
    """Name an image for a message: its file, if it has one, and its position."""
    return (
        f"{stored['path']} (position {position})" if stored and stored["path"] else f"the image at position {position}"
    )


def undecoded(rows: Any, column: str) -> Any:
    """Return the image column alone, undecoded. Raises ValueError if it is missing or holds no images."""
    import datasets

    if column not in rows.column_names:
        raise ValueError(f"column {column!r} is not in the data, which has {', '.join(rows.column_names)}")
    kind = rows.features[column]
    stored = isinstance(kind, dict) and {"bytes", "path"} <= kind.keys()
    if (
        not isinstance(kind, datasets.Image)
        and not stored
        and getattr(kind, "dtype", None) not in ("string", "binary")
    ):
        raise ValueError(f"column {column!r} holds {kind}, not images: name the image column")
    return rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def file_content(stored: dict[str, Any]) -> bytes:
    """Return the encoded bytes of an image that `datasets.Image(decode=False)` gave."""
    return stored["bytes"] if stored["bytes"] is not None else Path(stored["path"]).read_bytes()


class ArrayDataset(LabelledDataset):
    """Images in memory: `pixel_values` (N, C, H, W) in [-1, 1] and optional `labels` (N,)."""

    def __init__(self, pixel_values: Tensor, labels: Tensor | None = None):
        self.pixel_values, self.label_tensor = pixel_values, labels

    def __len__(self) -> int:
        return len(self.pixel_values)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        item = {"pixel_values": self.pixel_values[i]}
        if self.label_tensor is not None:
            item["labels"] = self.label_tensor[i]
        return item

    @property
    def labels(self) -> list[int] | None:
        return None if self.label_tensor is None else self.label_tensor.tolist()

    def stored_bytes(self, positions: Sequence[int]) -> Iterator[bytes]:
        return (self.pixel_values[i].numpy().tobytes() for i in positions)


class FlippedAndCropped(Subset):
    """Augment `images` (items (C, H, W)): flip each with probability 1/2 and shift it by up to `shift` pixels.

    Edge pixels fill the gap. The draws come from torch's global generator, whose state checkpoints keep, so use this
    in one process and without workers.
    """

    def __init__(self, images: SizedDataset, shift: int = 4):
        super().__init__(cast(Dataset, images), range(len(images)))
        self.shift = shift

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        item = dict(self.dataset[i])
        pixels, shift = item["pixel_values"], self.shift
        flip, left, top = (int(torch.randint(n, ())) for n in (2, 2 * shift + 1, 2 * shift + 1))
        padded = torch.nn.functional.pad(pixels[None], (shift,) * 4, mode="replicate")[0]
        moved = padded[:, top : top + pixels.shape[1], left : left + pixels.shape[2]]
        return {**item, "pixel_values": moved.flip(-1) if flip else moved}

    def __getitems__(self, indices: list[int]) -> list[dict[str, Tensor]]:
        return [self[i] for i in indices]


class ImageDataset(LabelledDataset):
    """Images of a `datasets.Dataset` as the model expects them: resized, with its channels, in [-1, 1].

    Args:
        rows: data with `image_column` (PIL images) and, if `label_column` is given, integer labels.
        size: height and width after resizing, one number or both. None keeps each image's own size.
        channels: 1 (grey) or 3 (RGB).
        center_crop: whether to crop to that shape instead of squeezing.

    Attributes:
        class_names: by number; empty where the data has numbers only.
        captions: of the images in their order, where what loaded them knows some.
    """

    captions: list[str] | None = None

    def __init__(
        self,
        rows: Any,
        size: int | Sequence[int] | None,
        channels: int,
        image_column: str = "image",
        label_column: str | None = None,
        center_crop: bool = False,
    ):
        for column in filter(None, (image_column, label_column)):
            if column not in rows.column_names:
                raise ValueError(f"column {column!r} is not in the data, which has {', '.join(rows.column_names)}")
        self.stored = undecoded(rows, image_column)
        if label_column is not None:
            wrong = [i for i, label in enumerate(rows[label_column]) if not isinstance(label, int) or label < 0]
            if wrong:
                raise ValueError(
                    f"column {label_column!r} has {rows[wrong[0]][label_column]!r} at position {wrong[0]}: labels are "
                    "class numbers from 0"
                )
        if channels not in (1, 3):
            raise ValueError(f"images have 1 or 3 channels, the model asks for {channels}")
        self.rows, self.size, self.channels = rows, size, channels
        self.image_column, self.label_column, self.center_crop = image_column, label_column, center_crop
        self.class_names = stored_names(rows, label_column)
        self._numbers: dict[int, int] | None = None

    def renumber(self, numbers: Mapping[int, int]) -> None:
        """Give each class another number, as a model counts them."""
        self._numbers = dict(numbers)
        self.class_names = {number: self.class_names[old] for old, number in numbers.items()}

    def _label(self, stored: int) -> int:
        return stored if self._numbers is None else self._numbers[stored]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        stored = self.stored[int(i)][self.image_column]
        if stored is None:
            raise ValueError(f"there is no image at position {i} of the data: leave that row out")
        image = open_image(stored, image_name(stored, int(i)))
        item = {"pixel_values": to_pixels(image, self.size, self.channels, self.center_crop)}
        if self.label_column is not None:
            item["labels"] = torch.tensor(self._label(self.rows[int(i)][self.label_column]))
        return item

    @property
    def labels(self) -> list[int] | None:
        return None if self.label_column is None else [self._label(label) for label in self.rows[self.label_column]]

    def stored_bytes(self, positions: Sequence[int]) -> Iterator[bytes]:
        return (file_content(self.stored[int(i)][self.image_column]) for i in positions)


def to_pixels(
    image: Image.Image, size: int | Sequence[int] | None, channels: int, center_crop: bool = False
) -> Tensor:
    """Return the image as a (C, H, W) float tensor in [-1, 1], `size` pixels square, or (height, width).

    `center_crop` scales the image until it covers that and crops the rest; otherwise the image is squeezed to it.
    """
    image = eight_bit(image).convert("L" if channels == 1 else "RGB")
    high, wide = (size, size) if isinstance(size, int) else size or (image.height, image.width)
    if image.size != (wide, high):
        if center_crop:
            factor = max(wide / image.width, high / image.height)
            scaled = max(wide, round(image.width * factor)), max(high, round(image.height * factor))
            image = image.resize(scaled, Image.Resampling.LANCZOS)
            left, top = (scaled[0] - wide) // 2, (scaled[1] - high) // 2
            image = image.crop((left, top, left + wide, top + high))
        else:
            image = image.resize((wide, high), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, dtype=np.float32) / 127.5 - 1
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1).contiguous()


def blur_picture(picture: Image.Image) -> Image.Image:
    """Blur an image that must not be shown, with a Gaussian a tenth as wide as the image."""
    return picture.filter(ImageFilter.GaussianBlur(max(picture.size) / 10))


def digits() -> ArrayDataset:
    """Return 1,797 handwritten digits as (1, 8, 8) images in [-1, 1] with labels 0-9 (UCI, CC BY 4.0).

    The file in `assets/digits` holds what scikit-learn's `load_digits` returns.
    """
    with np.load(DIGITS, allow_pickle=False) as stored:
        images, labels = stored["images"], stored["labels"]
    pixels = torch.tensor(images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    return ArrayDataset(pixels, torch.tensor(labels, dtype=torch.int64))
