"""An image folder of variants: drawn, read by a classifier, and written with where each came from."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..common.files import atomic, write_text
from ..common.limits import SEEDS, check_limits
from ..data.pairs import labels_of
from ..data.protocols import SizedDataset
from ..evaluation.protocols import SampleClassifier
from ..families.classifier.load import ProcessedImages, load_labelled_images
from .drawing import Wanted, draw, planned
from .generators import Generator
from .pictures import pixels_of, read_png
from .slow import Slow

CACHE = ".variants"  # in the output folder; hidden, so that no loader takes it for a class
ABOUT, LINES = "augmentation.json", "metadata.jsonl"
SAFE = re.compile(r"\w[\w .,()+-]*")  # a class name that can be a folder's
CHUNK = 256  # images that the judge reads at once


@dataclass(frozen=True)
class Variants:
    """What `augment` wrote.

    folder: an image folder, a folder for each class, with metadata.jsonl. rows: its lines. drawn: how many variants
    this call drew, beside those that it found. wanted, refused: how many there should be, and how many of them the
    classifier does not read as their class, by class name; these are not in the folder.
    """

    folder: Path
    rows: list[dict[str, Any]] = field(repr=False)
    drawn: int
    wanted: dict[str, int]
    refused: dict[str, int]

    def dataset(self, model: Any, processor: Any = None) -> ProcessedImages:
        """Return the variants as a classifier takes them."""
        return load_labelled_images(self.folder, model, processor, "train")


def augment(
    dataset: SizedDataset,
    slow: Slow | Sequence[int],
    generator: Generator,
    output_dir: str | Path,
    factor: int = 2,
    strength: float | Sequence[float] = 0.5,
    judge: SampleClassifier | None = None,
    names: Mapping[int, str] | None = None,
    new_images: bool = False,
    seed: int = 0,
    cache_dir: str | Path | None = None,
) -> Variants:
    """Draw factor - 1 variants of each slow-learnt image, and write those that keep their class as an image folder.

    What is drawn is kept by content in `cache_dir`: a killed run goes on, and other images, factors or strengths take
    what is there. Variant j of an image depends on the image, its class, the generator, the strength, `seed` and j.

    Args:
        dataset: Images with labels: a classifier's `ProcessedImages`, or items in [-1, 1], and subsets of these.
        slow: What `find_slow_learnt` found in `dataset`, or positions in it.
        generator: As `generator_of` makes it of a pipeline.
        factor: How often a slow-learnt image then stands in the data, itself included (the paper's k, 2 to 5).
        strength: The share of the generator's chain in (0, 1), or several, which variants of one image take in turn.
        judge: Reads images (B, C, H, W) in [-1, 1]; a variant that it gives another class is refused and counted.
            None refuses none.
        names: Of all classes by number, for folders, prompts and the generator; default the numbers of the data's.
        new_images: Whether a strength of 1 is meant: an image from pure noise, which keeps the class alone.
        seed: Of the variants' seeds.
        cache_dir: Default a hidden folder in `output_dir`.

    Raises:
        ValueError: a strength, a factor, no slow-learnt image, no labels, the generator draws other classes, the
            classifier refuses all, or `output_dir` holds images that are not of this function.
    """
    positions = list(slow.positions if isinstance(slow, Slow) else slow)
    strengths = checked_strengths(strength, new_images)
    check_limits(_Numbers(factor, seed), factor="[2, inf)", seed=SEEDS)
    if not positions:
        raise ValueError("no slow-learnt image is given, so there is nothing to draw variants of")
    labels = labels_of(dataset)
    if labels is None:
        raise ValueError("the images have no labels, so a variant could be of any class: give labelled images")
    output = Path(output_dir)
    _check_output(output)
    named = dict(names or {label: str(label) for label in sorted(set(labels))})
    wanted = planned(dataset, positions, labels, named, generator, factor - 1, strengths, seed)
    cache = Path(cache_dir or output / CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    drawn = draw(dataset, wanted, generator, cache)
    rows, refused = _write(output, cache, wanted, generator.channels, judge)
    written = {output / row["file_name"] for row in rows}
    for path in output.glob("*/*.png"):  # of other images, refused by now, or left by a killed call
        if path not in written and path.parent != cache and read_png(path.read_bytes()) is not None:
            path.unlink(missing_ok=True)
    total = _counted(wanted)
    told = {"variants": len(rows), "wanted": total, "refused": refused, "generator": generator.name}
    write_text(output / ABOUT, json.dumps(told, indent=1) + "\n")
    return Variants(output, rows, drawn, total, refused)


@dataclass
class _Numbers:
    factor: int
    seed: int


def checked_strengths(strength: float | Sequence[float], new_images: bool = False) -> list[float]:
    """Return the strengths, or raise ValueError for one that makes no variant."""
    strengths = [float(strength)] if isinstance(strength, int | float) else [float(s) for s in strength]
    if not strengths:
        raise ValueError("no strength is given: name one in (0, 1), such as 0.5")
    for value in strengths:
        if value == 1 and not new_images:
            raise ValueError(
                "strength 1 leaves nothing of the image: lower it, or set new_images to draw from pure noise"
            )
        if not 0 < value <= 1:
            raise ValueError(f"strength must lie in (0, 1), the share of the chain that is drawn anew, got {value:g}")
    return strengths


def _counted(wanted: Sequence[Wanted]) -> dict[str, int]:
    names = [one.row["class"] for one in wanted]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def _write(
    output: Path, cache: Path, wanted: Sequence[Wanted], channels: int, judge: SampleClassifier | None
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Write the variants that keep their class, and their lines last. Return the lines, and how many were refused."""
    contents = [(cache / f"{one.row['key']}.png").read_bytes() for one in wanted]
    read = [one.row["label"] for one in wanted] if judge is None else _read(judge, contents, channels)
    accepted = [k for k, one in enumerate(wanted) if read[k] == one.row["label"]]
    if not accepted:
        raise ValueError(
            f"the classifier reads none of {len(wanted)} variants as their class: lower the strength, or name another "
            "generator or judge"
        )
    rows = []
    for k in accepted:
        row = wanted[k].row
        place = row["class"] if SAFE.fullmatch(row["class"]) else f"class_{row['label']}"
        file = f"{place}/{row['source']:06d}_{row['copy']}_{row['key']}.png"
        (output / place).mkdir(parents=True, exist_ok=True)
        with atomic(output / file) as partial:
            partial.write_bytes(contents[k])
        rows.append({"file_name": file, **row})
    write_text(output / LINES, "".join(json.dumps(row) + "\n" for row in rows))
    taken = set(accepted)
    return rows, _counted([one for k, one in enumerate(wanted) if k not in taken])


@torch.no_grad()
def _read(judge: SampleClassifier, contents: Sequence[bytes], channels: int) -> list[int]:
    """The class that the judge gives each file."""
    found: list[int] = []
    for start in range(0, len(contents), CHUNK):
        images = torch.stack([pixels_of(one, channels) for one in contents[start : start + CHUNK]])
        found += judge(images).argmax(1).tolist()
    return found


def _check_output(output: Path) -> None:
    """Raise ValueError if the folder describes images that no call of `augment` wrote."""
    if not (output / LINES).exists():
        return
    lines = (output / LINES).read_text(encoding="utf-8").splitlines() if (output / ABOUT).is_file() else [""]
    paths = [output / json.loads(line)["file_name"] for line in lines if line]
    if lines == [""] or any(path.is_file() and read_png(path.read_bytes()) is None for path in paths):
        raise ValueError(f"{output} holds {LINES} and images that no augmentation wrote: name another output_dir")
