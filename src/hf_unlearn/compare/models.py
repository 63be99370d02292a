"""The data of a comparison and the models that it compares with: trained on all of it, or without the forget set.

Both are trained here, unless the recipe names folders of models that are trained already.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Subset
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel

from ..common.untrusted import loading
from ..common.weights import weights_digest
from ..data.fingerprint import fingerprint
from ..data.images import ArrayDataset, FlippedAndCropped
from ..data.pairs import collate, halves, random_subset, split_by_index, split_by_label
from ..data.protocols import SizedDataset
from ..data.sources import split_names
from ..training.recipes import CLASSIFIERS, build_classifier, digits_splits, train_classifier

if TYPE_CHECKING:  # its values are in the key of every cell
    from ..families.classifier.load import ProcessedImages
    from .recipe import Recipe

Splits = tuple[dict[str, ArrayDataset], dict[str, str]]


def splits_of(recipe: "Recipe") -> Splits:
    """The train, validation and test parts in memory, and a digest of each."""
    return _splits_of(recipe)[:2]


def class_names_of(recipe: "Recipe") -> list[str]:
    """The names of the classes by id: the model's, or the data's where the model has placeholders only."""
    return _splits_of(recipe)[2]


def _splits_of(recipe: "Recipe") -> tuple[dict[str, ArrayDataset], dict[str, str], list[str]]:
    if recipe.original:
        return _own_splits(recipe.data, recipe.original, recipe.image_column, recipe.label_column)
    return _splits(recipe.data, recipe.model, recipe.image_column, recipe.label_column)


@functools.cache
def _splits(
    data: str, model: str, image_column: str, label_column: str
) -> tuple[dict[str, ArrayDataset], dict[str, str], list[str]]:
    """Validation is a tenth of the training part, where the data has no part of its own for it."""
    parts: dict[str, ArrayDataset]
    if data == "digits":
        parts, names = digits_splits(), [str(i) for i in range(10)]
    else:
        from ..families.classifier.load import load_labelled_images

        untrained, processor = start_of(model, 0), processor_of(model)
        images = {
            split: load_labelled_images(data, untrained, processor, split, image_column, label_column)
            for split in ("train", "test")
        }
        names = _names(images["train"], untrained)
        train, test = (in_memory(part) for part in images.values())
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        tenth = len(train) // 10
        parts = {"train": _part(train, order[tenth:]), "validation": _part(train, order[:tenth]), "test": test}
    return parts, {name: fingerprint(part, len(part)) for name, part in parts.items()}, names


@functools.cache
def _own_splits(
    data: str, original: str, image_column: str, label_column: str
) -> tuple[dict[str, ArrayDataset], dict[str, str], list[str]]:
    """The training part is whole, as the given models were trained on it: only held-out images are divided.

    Validation is a part of the data where there are two held-out ones, else one half of the only one.
    """
    if data == "digits":
        raise ValueError("data: digits is for models that are trained here: name the folder of your models' images")
    from ..families.classifier.load import load_image_classifier, load_labelled_images

    model, processor = load_image_classifier(original)
    present = split_names(data)
    held_out = [name for name in ("test", "validation", "valid", "val") if name in present]
    if "train" not in present or not held_out:
        raise ValueError(f"{data} needs a train part and a test or validation part, it has {', '.join(present)}")
    images = {
        name: load_labelled_images(data, model, processor, name, image_column, label_column)
        for name in ("train", *held_out[:2])
    }
    names = _names(images["train"], model)
    loaded = {name: in_memory(part) for name, part in images.items()}
    test = loaded[held_out[0]]
    if len(held_out) > 1:
        parts = {"train": loaded["train"], "validation": loaded[held_out[1]], "test": test}
    else:
        first, second = (_part(test, torch.tensor(half.indices)) for half in halves(test))  # as `classify` does
        parts = {"train": loaded["train"], "validation": first, "test": second}
    return parts, {name: fingerprint(part, len(part)) for name, part in parts.items()}, names


def _part(data: ArrayDataset, positions: torch.Tensor) -> ArrayDataset:
    return ArrayDataset(data.pixel_values[positions], torch.tensor(data.labels)[positions])


def _names(images: "ProcessedImages", model: PreTrainedModel) -> list[str]:
    """The names of the classes by id."""
    named = {int(i): str(name) for i, name in (model.config.id2label or {}).items()}
    if images.class_names and all(name == f"LABEL_{i}" for i, name in named.items()):
        return images.class_names
    return [named[i] for i in sorted(named)]


@functools.cache
def _own_model(original: str, retrained: str, kind: str) -> PreTrainedModel:
    from ..families.classifier.load import check_same_build, load_image_classifier

    model, processor = load_image_classifier(original)
    if kind == "original":
        return model
    other, theirs = load_image_classifier(retrained)
    check_same_build(model, other, f"retrained {retrained}")
    if theirs is not None:  # both models are measured on the same pixels
        ours = {} if processor is None else processor.to_dict()
        differs = sorted(name for name, value in theirs.to_dict().items() if ours.get(name) != value)
        if differs:
            raise ValueError(
                f"retrained {retrained} has another image processor than the original: {differs[0]} differs"
            )
    return other


def own_model(recipe: "Recipe", kind: str) -> PreTrainedModel:
    """The given model of a kind, "original" or "retrained". It is shared: copy it before it is changed."""
    return _own_model(recipe.original or "", recipe.retrained or "", kind)


@functools.cache
def _own_digests(original: str, retrained: str) -> list[str]:
    return [weights_digest(_own_model(original, retrained, kind)) for kind in ("original", "retrained")]


def own_digests(recipe: "Recipe") -> list[str]:
    """Digests of the weights of both given models."""
    return _own_digests(recipe.original or "", recipe.retrained or "")


def in_memory(images: "ProcessedImages") -> ArrayDataset:
    """Decode all images once.

    Raises:
        ValueError: the model takes images of one size, and nothing says to which they are brought.
    """
    items = [images[i] for i in range(len(images))]
    shapes = sorted({tuple(item["pixel_values"].shape) for item in items})
    if len(shapes) > 1:
        raise ValueError(
            f"the images have {len(shapes)} sizes, such as {shapes[0]} and {shapes[-1]}, and the model has neither an "
            "image processor nor an image_size: bring them to one size, or name a model folder with "
            "preprocessor_config.json"
        )
    batch = collate(items)
    return ArrayDataset(batch["pixel_values"], batch["labels"])


def forget_and_retain(recipe: "Recipe", seed: int) -> tuple[Subset, Subset]:
    """Split the training part: the forgotten classes or positions, or a random subset that the seed decides.

    Raises:
        ValueError: there is no such class or position.
    """
    train, forget = splits_of(recipe)[0]["train"], recipe.forget
    if "classes" in forget:
        return split_by_label(train, class_numbers(forget["classes"], class_names_of(recipe)))
    if "indices" in forget:
        return split_by_index(train, forget["indices"])
    return split_by_index(train, random_subset(len(train), forget["fraction"], forget.get("seed", seed)))


def class_numbers(classes: Sequence[int | str], names: Sequence[str]) -> list[int]:
    """The id of each class, which is a name or an id. ValueError, with the names, for one that there is not."""
    found = []
    for wanted in classes:
        if isinstance(wanted, str) and wanted in names:
            found.append(list(names).index(wanted))
        elif str(wanted).isdecimal() and int(wanted) < len(names):
            found.append(int(wanted))
        else:
            known = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
            raise ValueError(f"class {wanted!r} is not one of {known}")
    return found


def start_of(name: str, seed: int) -> PreTrainedModel:
    """Build an untrained model: one of `CLASSIFIERS`, or the architecture of a folder or Hub id with fresh weights."""
    if name in CLASSIFIERS:
        return build_classifier(name, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with loading(name):
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            return AutoModelForImageClassification.from_config(config, trust_remote_code=False)


def processor_of(name: str) -> Any:
    """The image processor of a model that is trained here; None for one of `CLASSIFIERS` or a folder without one."""
    if name in CLASSIFIERS or (Path(name).is_dir() and not (Path(name) / "preprocessor_config.json").is_file()):
        return None
    with loading(name):
        return AutoImageProcessor.from_pretrained(name, trust_remote_code=False, backend="pil")


def train_model(recipe: "Recipe", seed: int, forget_seed: int | None, folder: Path) -> float:
    """Train a model from the weights of `seed`, save it to `folder` and return the seconds of training.

    Args:
        forget_seed: leave out the forget set of this seed; None trains on all data.
    """
    data: SizedDataset = splits_of(recipe)[0]["train"]
    if forget_seed is not None:
        _, data = forget_and_retain(recipe, forget_seed)
    data = FlippedAndCropped(data) if recipe.augment else data
    return train_classifier(start_of(recipe.model, seed), data, seed, str(folder), **recipe.train)
