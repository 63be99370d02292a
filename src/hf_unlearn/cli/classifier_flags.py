"""Which images a classifier was trained on, and which of them to forget."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Subset
from transformers import PreTrainedModel

from ..data.class_names import class_ids, names_of
from ..data.pairs import random_subset, split_by_index, split_by_label
from ..data.sources import held_out_split, split_names
from ..families.classifier.inputs import plain_processor
from ..families.classifier.load import ProcessedImages, load_labelled_images, need_processor
from .flags import flag


@dataclass
class ClassifierDataFlags:
    dataset_name: str | None = flag(None, "Hub id of the training images.")
    dataset_config_name: str | None = flag(None, "Configuration of that data set.")
    train_data_dir: str | None = flag(
        None, "Folder of the training images: one folder per class, or parquet files.", "train_dir"
    )
    validation_data_dir: str | None = flag(
        None, "Folder of images that the model was never trained on, arranged in the same way.", "validation_dir"
    )
    image_column: str = flag("image", "Column that holds the images.", "image_column_name")
    label_column: str = flag("label", "Column that holds the labels.", "label_column_name")
    max_train_samples: int | None = flag(None, "Training images to take, spread evenly over the data.")
    max_eval_samples: int | None = flag(None, "Test images to take, spread evenly over the data.")
    forget_class: list[str] | None = flag(None, "Classes to forget, by name or number; may be repeated.")
    forget_fraction: float | None = flag(None, "Share of the training images to forget, drawn at random by --seed.")
    forget_indices: str | None = flag(None, "File with the positions of the training images to forget, one a line.")
    skip_unreadable_images: bool = flag(False, "Leave broken images out and name them.")
    image_mean: list[float] | None = flag(
        None, "Mean of the pixels in [0, 1], one number or one a channel, for a model folder without a processor."
    )
    image_std: list[float] | None = flag(None, "Standard deviation of the pixels, in the same way.")

    def __post_init__(self):
        for name in ("max_train_samples", "max_eval_samples"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("train_data_dir", "validation_data_dir"):
            if getattr(self, name) is not None and not Path(getattr(self, name)).is_dir():
                raise ValueError(f"{name} {getattr(self, name)} is not a folder")
        given = [n for n in ("forget_class", "forget_fraction", "forget_indices") if getattr(self, n) is not None]
        if len(given) > 1 or (not given and (self.train_data_dir or self.dataset_name)):
            raise ValueError("say what to forget with one of --forget_class, --forget_fraction or --forget_indices")
        if (self.image_mean is None) != (self.image_std is None):
            raise ValueError("--image_mean and --image_std belong together: give both")
        if self.train_data_dir and self.dataset_name:
            raise ValueError("give the training images by --train_data_dir or by --dataset_name, not both")

    @property
    def source(self) -> str:
        """The folder or Hub id of the training images. Raises ValueError where there is none."""
        source = self.train_data_dir or self.dataset_name
        if not source:
            raise ValueError("no data: set --train_data_dir or --dataset_name to the images the model was trained on")
        return source

    def load(self, where: str, part: str, most: int | None, model: PreTrainedModel, processor: Any) -> ProcessedImages:
        """One split of `where`, at most `most` images of it."""
        images = load_labelled_images(
            *(where, model, processor, part, self.image_column, self.label_column),
            config_name=self.dataset_config_name if where == self.dataset_name else None,
            max_samples=most,
            skip_unreadable=self.skip_unreadable_images,
        )
        if images.skipped:
            print(f"{len(images.skipped)} unreadable images of {where} are left out: {', '.join(images.skipped)}")
        return images


def processor_of(data: ClassifierDataFlags, model: PreTrainedModel, processor: Any, name: str) -> Any:
    """The processor that came with the model called `name`, or the one that the flags describe.

    Raises:
        ValueError: there is neither, or both.
    """
    if data.image_mean is None or data.image_std is None:
        need_processor(
            processor,
            name,
            "set --image_mean and --image_std (0.5 and 0.5 for pixels in [-1, 1]; 0.485 0.456 0.406 and "
            "0.229 0.224 0.225 for those of ImageNet), or save its image processor beside it",
        )
        return processor
    if processor is not None:
        raise ValueError(
            f"{name} has an image processor, which says mean and std: leave --image_mean and --image_std out"
        )
    return plain_processor(model.config, data.image_mean, data.image_std)


def train_images(data: ClassifierDataFlags, model: PreTrainedModel, processor: Any) -> ProcessedImages:
    """The training images of the flags, as `model` takes them."""
    return data.load(data.source, "train", data.max_train_samples, model, processor)


def held_out_images(data: ClassifierDataFlags, model: PreTrainedModel, processor: Any) -> ProcessedImages | None:
    """Images never trained on: of --validation_data_dir, else the held-out split of the source, or None."""
    names = split_names(data.source, data.dataset_config_name)
    where, held_out = data.source, held_out_split(names)
    if data.validation_data_dir:
        names = split_names(data.validation_data_dir)
        where, held_out = data.validation_data_dir, held_out_split(names) or names[0]
    return None if held_out is None else data.load(where, held_out, data.max_eval_samples, model, processor)


def split_train(data: ClassifierDataFlags, train: Any, model: PreTrainedModel, seed: int) -> tuple[Subset, Subset]:
    """(forget, retain) parts of the training images; a random tenth where the flags do not say."""
    if data.forget_class:
        return split_by_label(train, class_ids(data.forget_class, model.config))
    if data.forget_indices is None:
        fraction = 0.1 if data.forget_fraction is None else data.forget_fraction
        return split_by_index(train, random_subset(len(train), fraction, seed))
    chosen = read_indices(data.forget_indices)
    return split_by_index(train, train.places(chosen) if isinstance(train, ProcessedImages) else chosen)


def unretained(retained: Iterable[int] | None, config: Any, forgotten: Iterable[int], shown: int = 6) -> str:
    """Say in a line which of the model's classes nothing holds; "" where there is none.

    Args:
        retained: label of each retained image; None where they have none.
        forgotten: classes that are to be forgotten as a whole.
    """
    if retained is None:
        return ""
    lost = sorted(set(range(config.num_labels)) - set(retained) - set(forgotten))
    if not lost:
        return ""
    named = ", ".join(names_of(lost[:shown], config)) + (", ..." if len(lost) > shown else "")
    has, them = ("has", "it") if len(lost) == 1 else ("have", "them")
    return (
        f"{len(lost)} of {config.num_labels} classes {has} no retained image ({named}): nothing holds what the model "
        f"knows of {them}. Add images of {them} to the training images; name a class that is to go in --forget_class"
    )


def read_indices(path: str) -> list[int]:
    """Positions from a file with one a line."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error}): write one position a line") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [line for line in lines if not re.fullmatch("[0-9]{1,18}", line)]
    if wrong or not lines:
        raise ValueError(f"{path} holds {wrong[0][:40]!r}: write one position a line" if wrong else f"{path} is empty")
    return [int(line) for line in lines]
