"""Variants that are wanted, and how each is drawn once and kept by content."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..common.files import atomic
from ..common.identity import tensor_digest
from ..common.keys import code_key, content_key
from ..data.protocols import SizedDataset
from .generators import Generator
from .pictures import picture_at, png_of, read_png, source_of

# What of a row decides the picture, and what of it the file carries.
DECIDES = tuple(
    "source_picture condition strength seed generator_key num_inference_steps guidance_scale width".split()
)
TOLD = ("key", "seed", "strength", "generator_key")


@dataclass
class Wanted:
    """One variant before it is drawn: the place of its image in the data, and its line of metadata.jsonl."""

    place: int
    row: dict[str, Any]


def identity_of_generator(generator: Generator) -> str:
    """Return a hash of what a generator draws with: its weights, its settings and the code."""
    return content_key([generator.identity, code_key("augmentation.drawing")])


def planned(
    dataset: SizedDataset,
    positions: Sequence[int],
    labels: Sequence[int],
    names: Mapping[int, str],
    generator: Generator,
    copies: int,
    strengths: Sequence[float],
    seed: int,
) -> list[Wanted]:
    """Return what is wanted: `copies` variants of the images at `positions`, the strengths in turn.

    Raises:
        ValueError: the generator draws other classes, or what `picture_at` raises.
    """
    conditions, identity = generator.conditions(names), identity_of_generator(generator)
    settings = {name: value for name, value in vars(generator.variation).items() if name != "prompt"}
    wanted = []
    for i in positions:
        picture = tensor_digest(picture_at(dataset, i, generator.size, generator.channels))
        for j in range(copies):
            row = {
                **source_of(dataset, i),
                "source_picture": picture,
                "label": labels[i],
                "class": names[labels[i]],
                "copy": j,
                "strength": strengths[j % len(strengths)],
                "seed": int(content_key([seed, picture, j], 8), 16),
                "generator": generator.name,
                "generator_key": identity,
                "condition": conditions[labels[i]],
                **settings,
            }
            row["key"] = content_key([row[name] for name in DECIDES])
            wanted.append(Wanted(i, row))
    return wanted


def draw(dataset: SizedDataset, wanted: Sequence[Wanted], generator: Generator, cache: Path) -> int:
    """Draw what `cache` does not hold, and return how many that were.

    A batch holds variants of one strength, and is written, each file whole, before the next one is drawn.
    """
    missing = {one.row["key"]: one for one in wanted if kept(cache, one.row["key"]) is None}
    with tqdm(total=len(missing), desc="variants", disable=None if missing else True) as bar:
        for batch in drawn(dataset, list(missing.values()), generator):
            for one, content in batch:
                with atomic(cache / f"{one.row['key']}.png") as partial:
                    partial.write_bytes(content)
            bar.update(len(batch))
    return len(missing)


def drawn(
    dataset: SizedDataset, wanted: Sequence[Wanted], generator: Generator
) -> Iterator[list[tuple[Wanted, bytes]]]:
    """Draw variants, a batch when it is asked for, and give each with its PNG file."""
    for batch in _batches(wanted, generator.variation.width):
        pictures = [picture_at(dataset, one.place, generator.size, generator.channels) for one in batch]
        yield list(zip(batch, files_of(generator, torch.stack(pictures), [one.row for one in batch]), strict=True))


def _batches(missing: Sequence[Wanted], width: int) -> Iterator[list[Wanted]]:
    for strength in sorted({one.row["strength"] for one in missing}):
        same = [one for one in missing if one.row["strength"] == strength]
        for start in range(0, len(same), width):
            yield same[start : start + width]


def files_of(generator: Generator, pictures: torch.Tensor, rows: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Draw variants of pictures (B, C, H, W) as rows of one strength say, and return their PNG files.

    Raises:
        ValueError: one is not finite.
    """
    conditions, seeds = [row["condition"] for row in rows], [row["seed"] for row in rows]
    made = generator.vary(pictures, conditions, seeds, rows[0]["strength"])
    for row, pixels in zip(rows, made):
        if not pixels.isfinite().all():
            raise ValueError(
                f"the variant of image {row['source']} is not finite, as when a network overflows in half precision: "
                f"load {generator.name} in float32"
            )
    return [png_of(pixels, {name: row[name] for name in TOLD}) for row, pixels in zip(rows, made)]


def kept(cache: Path, key: str) -> bytes | None:
    """Return the file of a variant, if it is there, whole, and holds what was drawn."""
    try:
        content = (cache / f"{key}.png").read_bytes()
    except FileNotFoundError:
        return None
    row = read_png(content)
    return content if row is not None and row.get("key") == key else None


def redraw(rows: Sequence[Mapping[str, Any]], dataset: SizedDataset, generator: Generator) -> list[bytes]:
    """Draw variants again from their lines of metadata.jsonl, and return their files: on one machine the same bytes.

    Args:
        dataset: What the variants were drawn of.

    Raises:
        ValueError: the generator is another one, or the data does not hold a source image.
    """
    identity = identity_of_generator(generator)
    places = {source_of(dataset, i)["source"]: i for i in range(len(dataset))}
    files = []
    for row in rows:
        if row["generator_key"] != identity:
            raise ValueError(
                f"{row['file_name']} was drawn by another generator, or by other code, than {generator.name}"
            )
        i = places.get(row["source"])
        picture = None if i is None else picture_at(dataset, i, generator.size, generator.channels)
        if picture is None or tensor_digest(picture) != row["source_picture"]:
            raise ValueError(f"image {row['source']}, of which {row['file_name']} was drawn, is not in the data")
        files += files_of(generator, picture[None], [row])
    return files
