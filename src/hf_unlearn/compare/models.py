"""The data of a comparison and the models that it compares with: trained on all of it, or without the forget set."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Subset
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel

from ..common.untrusted import loading
from ..data.fingerprint import fingerprint
from ..data.images import ArrayDataset, FlippedAndCropped
from ..data.pairs import collate, random_subset, split_by_index, split_by_label
from ..data.protocols import SizedDataset
from ..training.recipes import CLASSIFIERS, build_classifier, digits_splits, train_classifier

if TYPE_CHECKING:  # its values are in the key of every cell
    from ..families.classifier.load import ProcessedImages
    from .recipe import Recipe

Splits = tuple[dict[str, ArrayDataset], dict[str, str]]


def splits_of(recipe: "Recipe") -> Splits:
    """The train, validation and test parts in memory, and a digest of each."""
    return _splits(recipe.data, recipe.model, recipe.image_column, recipe.label_column)


@functools.cache
def _splits(data: str, model: str, image_column: str, label_column: str) -> Splits:
    """Validation is a tenth of the training part, where the data has no part of its own for it."""
    parts: dict[str, ArrayDataset]
    if data == "digits":
        parts = digits_splits()
    else:
        from ..families.classifier.load import load_labelled_images

        untrained = start_of(model, 0)
        train, test = (
            in_memory(load_labelled_images(data, untrained, None, split, image_column, label_column))
            for split in ("train", "test")
        )
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        tenth = len(train) // 10
        labels = torch.tensor(train.labels)
        parts = {
            name: ArrayDataset(train.pixel_values[part], labels[part])
            for name, part in (("train", order[tenth:]), ("validation", order[:tenth]))
        }
        parts["test"] = test
    return parts, {name: fingerprint(part, len(part)) for name, part in parts.items()}


def in_memory(images: "ProcessedImages") -> ArrayDataset:
    """Decode all images once."""
    batch = collate([images[i] for i in range(len(images))])
    return ArrayDataset(batch["pixel_values"], batch["labels"])


def forget_and_retain(recipe: "Recipe", seed: int) -> tuple[Subset, Subset]:
    """Split the training part: the forgotten classes, or a random subset that the seed decides, from the rest."""
    train = splits_of(recipe)[0]["train"]
    if "classes" in recipe.forget:
        return split_by_label(train, recipe.forget["classes"])
    return split_by_index(train, random_subset(len(train), recipe.forget["fraction"], seed))


def start_of(name: str, seed: int) -> PreTrainedModel:
    """Build an untrained model: one of `CLASSIFIERS`, or the architecture of a folder or Hub id with fresh weights."""
    if name in CLASSIFIERS:
        return build_classifier(name, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with loading(name):
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            return AutoModelForImageClassification.from_config(config, trust_remote_code=False)


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
