"""A trained image classifier with its processor, and labelled images as that classifier takes them."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForImageClassification,
    PreTrainedModel,
)

from ...common.losses import spread
from ...common.untrusted import check_folder, check_weights, loading
from ...data.class_names import label_ids
from ...data.images import LabelledDataset, file_content, image_name, open_image, undecoded
from ...data.sources import load_rows
from .inputs import UNUSUAL, has_processor, load_processor, pixels_for

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def load_image_classifier(
    name_or_path: str, revision: str | None = None, variant: str | None = None
) -> tuple[PreTrainedModel, Any]:
    """(model, processor) of a folder or Hub id, weights from safetensors in fp32 (a checkpoint in half precision
    would be trained in it), the processor on PIL; None where there is none.

    Raises:
        ValueError: no such folder, no image classifier, or one without a trained head.
        OSError: the Hub has no such model, or cannot be reached.
    """
    folder = Path(name_or_path)
    check_folder(name_or_path)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is not a saved model: it has no config.json")
    if not folder.is_dir() and (folder.exists() or folder.is_absolute() or not HUB_ID.fullmatch(name_or_path)):
        raise ValueError(f"model folder {name_or_path} does not exist")
    check_weights(folder, [""], variant)
    with loading(name_or_path):  # where trust_remote_code is not given, transformers asks at the terminal
        config = AutoConfig.from_pretrained(name_or_path, revision=revision, trust_remote_code=False)
    if type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise ValueError(f"{name_or_path} is a {config.model_type} model, not an image classifier")
    if config.model_type in UNUSUAL:
        raise ValueError(
            f"{name_or_path} is a {config.model_type} model, which does not take images as (C, H, W) pixels alone: "
            "give another image classifier"
        )
    if config.num_labels < 2 or config.problem_type not in (None, "single_label_classification"):
        raise ValueError(
            f"{name_or_path} does not give an image one of several classes: {config.num_labels} labels, "
            f"problem_type {config.problem_type}"
        )
    with loading(name_or_path):
        model, report = AutoModelForImageClassification.from_pretrained(
            name_or_path,
            revision=revision,
            variant=variant,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    untrained = sorted(set(report["missing_keys"]) & {name for name, _ in model.named_parameters()})
    if untrained:
        raise ValueError(f"{name_or_path} is no trained classifier: it has no weights for {', '.join(untrained[:3])}")
    with loading(name_or_path):
        if not has_processor(name_or_path, config, revision):
            return model, None
        return model, load_processor(name_or_path, revision)


def load_image_processor(name_or_path: str, revision: str | None = None) -> Any:
    """Load the image processor of a folder or Hub id.

    Raises:
        ValueError: the folder holds none.
        OSError: the Hub has no such model, or cannot be reached.
    """
    with loading(name_or_path):
        return load_processor(name_or_path, revision)


def need_processor(processor: Any, name: str, instead: str) -> None:
    """Raise ValueError if a classifier called `name` came without an image processor; `instead` says what to do."""
    if processor is None:
        raise ValueError(
            f"{name} has no preprocessor_config.json, so the mean and the std of its pixels are not known: {instead}"
        )


def check_same_build(model: PreTrainedModel, other: PreTrainedModel, name: str) -> None:
    """Raise a ValueError unless `other`, called `name`, has the model's classes and parameter shapes."""
    if other.config.num_labels != model.config.num_labels:
        raise ValueError(f"{name} has {other.config.num_labels} classes, the model {model.config.num_labels}")
    ours, theirs = ({n: tuple(p.shape) for n, p in m.named_parameters()} for m in (model, other))
    different = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
    if different:
        n = different[0]
        raise ValueError(f"{name} is another architecture: {n} is {theirs.get(n)}, the model's is {ours.get(n)}")
    moved = [n for n, i in (model.config.label2id or {}).items() if (other.config.label2id or {}).get(n, i) != i]
    if moved:
        raise ValueError(f"{name} gives class {moved[0]!r} another id than the model")


class ProcessedImages(LabelledDataset):
    """Rows of a `datasets.Dataset` as a classifier takes them: `pixel_values` (C, H, W) float and `labels` () int64.

    Pixels come from the processor; without one they are in [-1, 1] at the configuration's image_size, or at their
    own size if it names none. Labels that are names become ids by the model's label map (see `class_names`).

    Args:
        positions: the rows to take, in this order; default all.
        skip_unreadable: decode every image now and leave out those that cannot be; `skipped` names them. Otherwise
            the first one that is met raises.

    Attributes:
        positions: where each sample is in `rows` as they were given.
        class_names: the data's own names of its classes by number; None where labels are plain numbers or strings.

    Raises:
        ValueError: a column is missing or of another kind, a label is unknown, or no image is left.
    """

    def __init__(
        self,
        rows: Any,
        model: PreTrainedModel,
        processor: Any,
        image_column: str = "image",
        label_column: str = "label",
        positions: Sequence[int] | None = None,
        skip_unreadable: bool = False,
    ):
        if label_column not in rows.column_names:
            raise ValueError(f"column {label_column!r} is not in the data, which has {', '.join(rows.column_names)}")
        self.config, self.processor = model.config, processor
        self.positions = list(range(len(rows)) if positions is None else positions)
        self.image_column = image_column
        self.rows = undecoded(rows, image_column)
        self.skipped: list[str] = []
        if skip_unreadable:
            broken = {i for i in self.positions if not self._readable(i)}
            self.skipped = [image_name(self._stored(i), i) for i in self.positions if i in broken]
            self.positions = [i for i in self.positions if i not in broken]
        if not self.positions:
            raise ValueError(f"no readable image in the data: {len(self.skipped)} were skipped")
        ids = label_ids(rows, label_column, self.config)
        self._labels = [ids[i] for i in self.positions]
        self.class_names: list[str] | None = getattr(rows.features[label_column], "names", None)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        position = self.positions[int(i)]
        image = self._decode(position)
        return {"pixel_values": self._pixels(image), "labels": torch.tensor(self._labels[int(i)])}

    @property
    def labels(self) -> list[int]:
        return self._labels

    def stored_bytes(self, positions: Sequence[int]) -> Iterator[bytes]:
        return (file_content(self._stored(self.positions[int(i)])) for i in positions)

    def places(self, positions: Sequence[int]) -> list[int]:
        """Indices of the samples at `positions` of the original rows. ValueError for one that is not among them."""
        where = {position: i for i, position in enumerate(self.positions)}
        lost = [p for p in positions if p not in where]
        if lost:
            raise ValueError(f"forget indices {lost[:5]} are not in use: out of range, skipped, or over the maximum")
        return [where[p] for p in positions]

    def picture(self, i: int) -> Image.Image:
        """Return sample `i` as its file holds it, before the processor."""
        return self._decode(self.positions[int(i)])

    def path(self, i: int) -> str | None:
        """Return the file of sample `i`, if it has one of its own."""
        return (self._stored(self.positions[int(i)]) or {}).get("path")

    def _stored(self, position: int) -> Any:
        return self.rows[position][self.image_column]

    def _decode(self, position: int) -> Image.Image:
        """The image at a position of the rows. Raises ValueError if it is missing or cannot be decoded."""
        stored = self._stored(position)
        try:
            if stored is None:
                raise ValueError(f"{image_name(None, position)} is missing")
            return open_image(stored, image_name(stored, position))
        except ValueError as error:
            raise ValueError(f"{error}: pass --skip_unreadable_images to leave such out") from error

    def _readable(self, position: int) -> bool:
        try:
            self._decode(position)
        except ValueError:
            return False
        return True

    def _pixels(self, image: Image.Image) -> torch.Tensor:
        return pixels_for(image, self.config, self.processor)


def load_labelled_images(
    source: str | Path,
    model: PreTrainedModel,
    processor: Any,
    split: str,
    image_column: str = "image",
    label_column: str = "label",
    config_name: str | None = None,
    max_samples: int | None = None,
    skip_unreadable: bool = False,
) -> ProcessedImages:
    """One split of an image folder, a folder of parquet files or a Hub id (see `sources`), for `model`.

    `max_samples` are spread evenly over the split, which may be sorted by class.

    Raises:
        ValueError: what `load_rows` and `ProcessedImages` raise.
    """
    rows = load_rows(source, split, config_name)
    positions = None if max_samples is None else spread(len(rows), max_samples)
    return ProcessedImages(rows, model, processor, image_column, label_column, positions, skip_unreadable)
