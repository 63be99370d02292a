"""Load images from an image folder, a folder of parquet or webdataset shards, or the Hub."""

import warnings
from pathlib import Path
from typing import Any

import torch

from ..common.untrusted import check_metadata_paths, loading
from .captions import DEFAULT, captions_of, check_metadata, choose_column
from .class_names import stored_names
from .folders import folder_files
from .images import ImageDataset, to_pixels


def split_names(source: str | Path, config_name: str | None = None) -> list[str]:
    """List the splits of a folder or Hub id. A folder whose names give no split is all `train`."""
    import datasets

    if Path(source).is_dir():
        return list(folder_files(Path(source)).files)
    with loading(source):
        return datasets.get_dataset_split_names(str(source), config_name)


def held_out_split(names: list[str]) -> str | None:
    """Return the split to test on: "test" if there is one, else "validation", else None."""
    return next((name for word in ("test", "validation", "valid", "val") for name in names if name == word), None)


def load_rows(
    source: str | Path,
    split: str,
    config_name: str | None = None,
    streaming: bool = False,
    captions: str | None = None,
) -> Any:
    """Load one split as a `datasets.Dataset`, or with `streaming` as an IterableDataset that is not stored.

    Args:
        captions: the column of a folder's metadata files that must hold texts; None does not look at them.

    Raises:
        ValueError: the folder has no image and no parquet file, or lacks that split, or a metadata file is wrong.
        OSError: `source` is neither a folder nor a data set on the Hub.
    """
    import datasets

    if not Path(source).is_dir():
        with loading(source):
            return datasets.load_dataset(str(source), config_name, split=split, streaming=streaming)
    check_metadata_paths(source)
    found = folder_files(Path(source))
    if split not in found.files:
        raise ValueError(f"{source} has no {split} split: there is {', '.join(found.files)}")
    for path in found.metadata.get(split, []):
        check_metadata(path, captions)
    files = {split: found.files[split]}
    with loading(source):
        rows = datasets.load_dataset(
            found.builder, data_files=files, split=split, streaming=streaming, **found.options
        )
    images = len(found.images.get(split, []))
    if not streaming and len(rows) < images:
        warnings.warn(
            f"{images - len(rows)} of {images} images in {source} are left out: its metadata does not describe them",
            stacklevel=2,
        )
    return rows


def load_images(
    source: str | Path | Any,
    size: int | None,
    channels: int,
    image_column: str = "image",
    label_column: str | None = "label",
    split: str = "train",
    config_name: str | None = None,
    center_crop: bool = False,
) -> ImageDataset:
    """Load a folder, a Hub id or a `datasets.Dataset` as an ImageDataset.

    In a directory with one folder per class the folders are the labels. A missing label column is an error, except
    for the default name: unlabelled data need not have it.

    Raises:
        ValueError: a column is missing, or what `load_rows` raises.
    """
    rows = load_rows(source, split, config_name) if isinstance(source, (str, Path)) else source
    if label_column == "label" and "label" not in rows.column_names:
        label_column = None
    return ImageDataset(rows, size, channels, image_column, label_column, center_crop)


def stream_images(
    source: str | Path,
    size: int | None,
    channels: int,
    image_column: str = "image",
    label_column: str = "label",
    config_name: str | None = None,
    center_crop: bool = False,
) -> Any:
    """Stream the train split of a folder of parquet or webdataset shards, or of a Hub id.

    Returns a `datasets.IterableDataset` with the items of an ImageDataset. The default label column may be missing.

    Raises:
        ValueError: a column is missing, or what `load_rows` raises.
    """
    rows = load_rows(source, "train", config_name, streaming=True)
    names = list(rows.column_names or next(iter(rows)))
    wanted = [image_column, *([label_column] if label_column != "label" or "label" in names else [])]
    for column in wanted:
        if column not in names:
            raise ValueError(f"column {column!r} is not in the data, which has {', '.join(names)}")

    def item(row: dict[str, Any]) -> dict[str, Any]:
        made = {"pixel_values": to_pixels(row[image_column], size, channels, center_crop)}
        if len(wanted) == 2:
            made["labels"] = torch.tensor(row[label_column])
        return made

    return rows.map(item, remove_columns=names)


def stream_class_names(source: str | Path, label_column: str, config_name: str | None = None) -> dict[int, str]:
    """Return the class names of what `stream_images` streams, by number; empty where it has numbers only."""
    return stored_names(load_rows(source, "train", config_name, streaming=True), label_column)


def load_captioned_images(
    source: str | Path,
    size: int,
    image_column: str = "image",
    caption_column: str = DEFAULT,
    center_crop: bool = False,
    split: str = "train",
) -> tuple[ImageDataset, list[str] | None]:
    """Load RGB images of a folder or Hub id, and their captions or None. A folder's captions are in metadata.jsonl or
    metadata.csv.

    Where the default caption column is missing, one that is called caption or prompt takes its place.

    Raises:
        ValueError: another caption column is missing, a caption is no text, or what `load_rows` raises.
    """
    rows = load_rows(source, split, captions=caption_column)
    images = ImageDataset(rows, size, 3, image_column, None, center_crop)
    column = choose_column(rows.column_names, caption_column)
    if column is None:
        return images, None
    if column != caption_column:
        warnings.warn(f"the captions are taken from column {column!r} (--caption_column)", stacklevel=2)
    images.captions = captions_of(rows, column)
    return images, images.captions
