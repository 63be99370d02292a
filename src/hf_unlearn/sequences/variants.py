"""Variants of what a replay memory holds: they stand beside it in one request, and are kept nowhere."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..augmentation.drawing import drawn, planned
from ..augmentation.generators import Generator
from ..augmentation.pictures import image_of
from ..augmentation.variants import checked_strengths
from ..common.keys import content_key
from ..common.limits import check_limits
from ..data.class_names import names_by_number
from ..data.images import ArrayDataset, to_pixels
from ..data.pairs import labels_of
from ..data.protocols import SizedDataset
from ..families import Classification
from ..families.classifier.inputs import pixels_for
from .measuring import Predict


@dataclass(frozen=True)
class Varied:
    """Variants of a memory, None if there are none, and how many the classifier did not read as their class."""

    images: ArrayDataset | None
    refused: int


@dataclass(frozen=True)
class MemoryVariants:
    """Draws variants of the samples in a replay memory, so that few samples of the past stand for more of it.

    They are drawn anew in every request, of what the memory holds once the forgotten has left it, and are written
    nowhere: nothing of a forgotten sample outlives it in them. What the generator itself knows is another matter: it
    is not unlearned with the classifier.

    Args:
        generator: as `augmentation.generator_of` makes it of a pipeline that draws the classifier's classes.
        factor: how often a sample then stands in the retained data, itself included.
        strength: the share of the generator's chain in (0, 1) that is drawn anew.
    """

    generator: Generator
    factor: int = 2
    strength: float = 0.5

    def __post_init__(self) -> None:
        check_limits(self, factor="[2, inf)")
        checked_strengths(self.strength)

    def as_dict(self) -> dict[str, Any]:
        """Generator and options, as JSON; of a path its last part, beside a hash of what is there."""
        name, told = Path(self.generator.name).name, content_key(self.generator.identity)
        return {"generator": name, "identity": told, "factor": self.factor, "strength": self.strength}

    def check(self, names: Mapping[int, str]) -> None:
        """Raise ValueError if the generator does not draw these classes."""
        self.generator.conditions(names)

    def of(self, kept: SizedDataset, objective: Classification, predict: Predict, seed: int) -> Varied:
        """Variants of `kept`, as the classifier takes them.

        Args:
            kept: samples as the classifier takes them, with labels.
            predict: the classifier as it is: a variant that it does not read as its class is refused.
            seed: of the variants; another seed draws others.
        """
        config, processor = objective.network.config, objective.processor
        pictures = torch.stack([_picture(kept[i]["pixel_values"], processor) for i in range(len(kept))])
        labels = labels_of(kept) or []
        shown = ArrayDataset(pictures, torch.tensor(labels))
        how = (self.generator, self.factor - 1, [self.strength], seed)
        wanted = planned(shown, range(len(shown)), labels, names_by_number(config), *how)
        made = [
            (pixels_for(Image.open(io.BytesIO(content)), config, processor), one.row["label"])
            for batch in drawn(shown, wanted, self.generator)
            for one, content in batch
        ]
        pixels, asked = zip(*made)
        variants = ArrayDataset(torch.stack(pixels), torch.tensor(asked))
        found = predict(variants)
        right = (found.logits.argmax(1) == found.labels).nonzero().flatten()
        taken_in = ArrayDataset(variants.pixel_values[right], found.labels[right]) if len(right) else None
        return Varied(taken_in, len(made) - len(right))


def _picture(pixels: Tensor, processor: Any) -> Tensor:
    """An image as the classifier takes it, (C, H, W), in [-1, 1]: what its processor made of the levels taken back."""
    mean, std = (getattr(processor, name, None) for name in ("image_mean", "image_std"))
    if mean is None or std is None or not getattr(processor, "do_normalize", True):
        return pixels
    centre, scale = (torch.tensor(part)[:, None, None] for part in (mean, std))
    return to_pixels(image_of((pixels * scale + centre) * 2 - 1), None, len(pixels))
