"""What the trainer asks of the items of a data set, checked on a few of them before anything is measured."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from ..common.losses import spread
from .images import ImageDataset
from .streaming import RetainStream

LOOKED_AT = 32  # items of a set whose shape and range are compared
WANTED = 'give items {"pixel_values": (C, H, W) tensor, "labels": class number}'
LOADERS = "load_images makes them of a folder or a datasets.Dataset with an image column"


def check_items(name: str, dataset: Any, known: Collection[str] | None) -> None:
    """Check that a set has a length and that its first item is one the trainer can use.

    Args:
        name: of the set, for messages: "forget" or "retain".
        known: the keys that the model takes; None is any.

    Raises:
        ValueError: the set is a stream, its items are no dicts of tensors, or their labels are no class numbers.
    """
    if not isinstance(dataset, RetainStream):
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            kind = type(dataset).__name__
            raise ValueError(
                f"the {name} set is a stream ({kind}), whose samples cannot be met again: give a data set with a "
                "length, such as a datasets.Dataset or a list (a retain set may be a datasets.IterableDataset)"
            )
        if isinstance(dataset, Mapping):
            raise ValueError(
                f"the {name} set is a {type(dataset).__name__} of {', '.join(dataset)}: give one of these"
            )
        if len(dataset) == 0:
            return  # the pairing says so
    item = dataset.example if isinstance(dataset, RetainStream) else dataset[0]
    if not isinstance(item, Mapping):
        raise ValueError(f"items of the {name} set are of type {type(item).__name__}, not dicts: {WANTED}")
    if "pixel_values" not in item:
        raise ValueError(f"items of the {name} set hold {', '.join(map(str, item))}, no pixel_values: {LOADERS}")
    _check_pixels(name, item["pixel_values"])
    if "label" in item and "labels" not in item and (known is None or "labels" in known):
        raise ValueError(f"items of the {name} set hold label, not labels: rename it (rename_column)")
    if "labels" in item:
        _check_label(name, item["labels"])
    more = [key for key in item if known is not None and key not in known]
    if more:
        raise ValueError(f"items of the {name} set hold {more[0]!r}, which the model does not take: leave it out")


def _check_pixels(name: str, value: Any) -> None:
    if isinstance(value, list | tuple):
        raise ValueError(f"pixel_values of the {name} set are lists: give tensors, dataset.with_format('torch')")
    if not isinstance(value, Tensor | np.ndarray):
        raise ValueError(f"pixel_values of the {name} set are of type {type(value).__name__}, not tensors: {LOADERS}")
    pixels = torch.as_tensor(value)
    if pixels.ndim != 3:
        raise ValueError(f"pixel_values of the {name} set have shape {tuple(pixels.shape)}, not (C, H, W): {WANTED}")
    if not pixels.is_floating_point():
        kind = str(pixels.dtype).removeprefix("torch.")
        how = ": give floats, x / 127.5 - 1 for a diffusion model, and what its processor gives for a classifier"
        raise ValueError(f"pixel_values of the {name} set are {kind}{how}")


def _check_label(name: str, value: Any) -> None:
    if value is None or isinstance(value, str):
        raise ValueError(f"labels of the {name} set are like {value!r}, not class numbers: {WANTED}")
    label = torch.as_tensor(value)
    if label.ndim > 0:
        how = "give class numbers, labels.argmax(-1) of one-hot rows" if label.numel() > 1 else "give plain numbers"
        raise ValueError(f"labels of the {name} set have shape {tuple(label.shape)}: {how}")
    if label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
        kind = str(label.dtype).removeprefix("torch.")
        raise ValueError(f"labels of the {name} set are {kind}, like {label.item()}: give integers, labels.long()")


def value_range(name: str, dataset: Any) -> tuple[float, float] | None:
    """Return the least and the largest pixel of the first items; None where they are known, for an ImageDataset.

    Drawing augmentations leaves torch's generator as it was.

    Raises:
        ValueError: the items have several shapes.
    """
    base = dataset
    while isinstance(base, Subset):
        base = base.dataset
    first: dict[tuple[int, ...], int] = {}
    low, high = float("inf"), float("-inf")
    with torch.random.fork_rng(devices=[]):
        for position, item in _some(dataset):
            pixels = torch.as_tensor(item["pixel_values"])
            first.setdefault(tuple(pixels.shape), position)
            if pixels.isfinite().all():  # what is not is named elsewhere
                low, high = min(low, float(pixels.min())), max(high, float(pixels.max()))
    if len(first) > 1:
        (one, i), (other, k) = list(first.items())[:2]
        raise ValueError(
            f"{name} samples {i} and {k} have shapes {one} and {other}: bring all images to one size, which a "
            "resolution or the model's processor does"
        )
    return None if isinstance(base, ImageDataset) or low > high else (low, high)


def _some(dataset: Any) -> Iterable[tuple[int, Any]]:
    if isinstance(dataset, RetainStream):
        return enumerate(dataset.first(LOOKED_AT))
    return ((i, dataset[i]) for i in spread(len(dataset), LOOKED_AT))


def as_tensors(item: Mapping[str, Any]) -> dict[str, Tensor]:
    """An item that `check_items` passed, with its arrays and numbers as tensors."""
    return {key: torch.as_tensor(value) for key, value in item.items()}
