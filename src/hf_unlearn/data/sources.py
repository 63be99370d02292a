"""Load images from an image folder, a folder of parquet or webdataset shards, or the Hub."""

import re
from pathlib import Path
from typing import Any

import torch

from ..common.untrusted import check_metadata, loading
from .images import IMAGE_SUFFIXES, ImageDataset, to_pixels

SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}


def split_names(source: str | Path, config_name: str | None = None) -> list[str]:
    """List the splits of a folder or Hub id. A folder whose names give no split is all `train`."""
    import datasets

    if Path(source).is_dir():
        return list(_folder_files(Path(source))[1])
    with loading(source):
        return datasets.get_dataset_split_names(str(source), config_name)


def held_out_split(names: list[str]) -> str | None:
    """Return the split to test on: "test" if there is one, else "validation", else None."""
    return next((name for word in ("test", "validation", "valid", "val") for name in names if name == word), None)


def load_rows(source: str | Path, split: str, config_name: str | None = None, streaming: bool = False) -> Any:
    """Load one split as a `datasets.Dataset`, or with `streaming` as an IterableDataset that is not stored.

    Raises:
        ValueError: the folder has no image and no parquet file, or lacks that split.
        OSError: `source` is neither a folder nor a data set on the Hub.
    """
    import datasets

    if not Path(source).is_dir():
        with loading(source):
            return datasets.load_dataset(str(source), config_name, split=split, streaming=streaming)
    builder, files = _folder_files(Path(source))
    if split not in files:
        raise ValueError(f"{source} has no {split} split: there is {', '.join(files)}")
    with loading(source):
        return datasets.load_dataset(builder, data_files={split: files[split]}, split=split, streaming=streaming)


def _folder_files(folder: Path) -> tuple[str, dict[str, list[str]]]:
    """Return the `datasets` builder of a folder, and its files or patterns by split.

    The files are listed by name, because `datasets` would also guess splits from the names of classes and images.
    """
    lost = [path for path in folder.rglob("*") if path.is_symlink() and not path.exists()]
    if lost:
        raise ValueError(f"{lost[0]} is a link to nothing: remove it, or mend it")
    for suffix, builder in (("parquet", "parquet"), ("tar", "webdataset")):
        files: dict[str, list[str]] = {}
        for path in sorted(folder.rglob(f"*.{suffix}")):
            words = re.split(r"[^a-z]+", path.relative_to(folder).as_posix().lower())
            files.setdefault(next((SPLITS[w] for w in words if w in SPLITS), "train"), []).append(str(path))
        if files:
            return builder, files
    check_metadata(folder)
    if not any(p.suffix.lower() in IMAGE_SUFFIXES for p in folder.rglob("*")):
        raise ValueError(f"no image and no parquet file in {folder}: put one folder of images per class in it")
    parts = sorted(p.name for p in folder.iterdir() if p.is_dir())
    if parts and all(name.lower() in SPLITS for name in parts):
        return "imagefolder", {SPLITS[name.lower()]: [f"{folder}/{name}/**"] for name in parts}
    return "imagefolder", {"train": [f"{folder}/**"]}


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


def load_captioned_images(
    source: str | Path,
    size: int,
    image_column: str = "image",
    caption_column: str = "text",
    center_crop: bool = False,
    split: str = "train",
) -> tuple[ImageDataset, list[str] | None]:
    """Load RGB images of a folder or Hub id, and their captions or None. A folder's captions are in metadata.jsonl.

    Raises:
        ValueError: a caption column other than the default is missing, or what `load_rows` raises.
    """
    rows = load_rows(source, split)
    images = ImageDataset(rows, size, 3, image_column, None, center_crop)
    if caption_column not in rows.column_names:
        if caption_column != "text":
            raise ValueError(f"column {caption_column!r} is not in the data, which has {', '.join(rows.column_names)}")
        return images, None
    return images, [str(text) for text in rows[caption_column]]
