"""Which files of a folder are data, of which split, and whether its folders are classes.

`datasets` would also guess splits from the names of classes and images, so the splits are decided here.
"""

import glob
import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
METADATA = ("metadata.jsonl", "metadata.csv")


@dataclass
class FolderFiles:
    """What of a folder is loaded, and how.

    builder: that of `datasets`: imagefolder, parquet or webdataset.
    files: by split, the files, or the pattern that all files of an image folder match.
    options: of the builder.
    images, metadata: of an image folder, the image files and the metadata files by split.
    """

    builder: str
    files: dict[str, list[str]]
    options: dict[str, Any] = field(default_factory=dict)
    images: dict[str, list[Path]] = field(default_factory=dict)
    metadata: dict[str, list[Path]] = field(default_factory=dict)


def is_ignored(name: str) -> bool:
    """Whether a file or folder belongs to a tool: hidden (.git, .ipynb_checkpoints), or as __MACOSX."""
    return name.startswith((".", "__"))


def visible_files(folder: Path) -> list[Path]:
    """Return all files below `folder`, sorted, without those of tools (`is_ignored`). Links are followed.

    Raises:
        ValueError: one of them is a link to nothing.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # links in a circle
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        found += [Path(place, name) for name in names if not is_ignored(name)]
    lost = next((path for path in sorted(found) if path.is_symlink() and not path.exists()), None)
    if lost is not None:
        raise ValueError(f"{lost} is a link to nothing: remove it, or mend it")
    return sorted(found)


def folder_files(folder: Path) -> FolderFiles:
    """Find the data of a folder: parquet files, webdataset shards, or images.

    Raises:
        ValueError: it holds none of them, or a link to nothing.
    """
    every = visible_files(folder)
    for suffix, builder in ((".parquet", "parquet"), (".tar", "webdataset")):
        shards = [path for path in every if path.suffix == suffix and path.stem != "metadata"]
        if shards:
            return FolderFiles(builder, _shards_by_split(folder, shards))
    images = [path for path in every if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise ValueError(f"no image and no parquet file in {folder}: put one folder of images per class in it")
    roots = _split_folders(folder, images) or {"train": [folder]}
    found = FolderFiles("imagefolder", {})
    for split, places in roots.items():
        found.files[split] = [f"{glob.escape(str(place))}/**" for place in places]
        for place in places:
            found.images.setdefault(split, []).extend(path for path in images if place in path.parents)
            of_split = [path for path in every if path.name in METADATA and place in path.parents]
            found.metadata.setdefault(split, []).extend(of_split)
    if not any(found.metadata.values()) and all(
        len(path.relative_to(place).parts) == 2
        for split, places in roots.items()
        for place in places
        for path in images
        if place in path.parents
    ):
        found.options["drop_labels"] = False  # `datasets` would drop them where there is one class alone
    return found


def _shards_by_split(folder: Path, shards: list[Path]) -> dict[str, list[str]]:
    """Shards by the split that a word of their path names; the others are the training data, if no shard says so."""
    files: dict[str, list[str]] = {}
    unnamed: list[str] = []
    for path in shards:
        words = re.split(r"[^a-z]+", path.relative_to(folder).as_posix().lower())
        split = next((SPLITS[word] for word in words if word in SPLITS), None)
        (files.setdefault(split, []) if split else unnamed).append(str(path))
    if unnamed and "train" in files:
        _say_left_out(folder, [str(Path(path).relative_to(folder)) for path in unnamed])
    elif unnamed:
        files["train"] = unnamed
    return files


def _split_folders(folder: Path, images: list[Path]) -> dict[str, list[Path]]:
    """The folders of each split, or nothing where the folders are classes.

    Folders with the names of splits are splits if there is nothing else, if several splits are there, or if they
    hold folders in turn. So "train" beside "bus", both full of images, is a class.
    """
    parts: dict[str, list[Path]] = {}
    for path in images:
        parts.setdefault(path.relative_to(folder).parts[0], []).append(path)
    folders = {name: inside for name, inside in parts.items() if (folder / name).is_dir()}
    splits: dict[str, list[Path]] = {}
    for name in folders:
        if name.lower() in SPLITS:
            splits.setdefault(SPLITS[name.lower()], []).append(folder / name)
    if not splits:
        only = next(iter(folders)) if len(parts) == len(folders) == 1 else None
        return {} if only is None else _split_folders(folder / only, images)  # a folder around the data
    placed = [
        path.relative_to(place) for places in splits.values() for place in places for path in folders[place.name]
    ]
    if len(splits) == 1 and len(folders) > 1 and all(len(path.parts) == 1 for path in placed):
        return {}
    others = [name for name in parts if name not in folders or name.lower() not in SPLITS]
    if others:
        _say_left_out(folder, others)
    return splits


def _say_left_out(folder: Path, names: list[str]) -> None:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    warnings.warn(
        f"{', '.join(names[:3])}{more} in {folder} is of no split and is left out: only what is named train, "
        "validation or test is read beside such folders",
        stacklevel=4,
    )
