"""Measure a class-conditional model with any image classifier that has the same classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.utils.pil_utils import numpy_to_pil
from torch import Tensor, nn

from ..common.losses import spread
from ..data.pairs import labels_of
from ..data.protocols import SizedDataset
from ..families.classifier.inputs import input_channels, input_sides, pixels_for
from ..families.classifier.load import load_image_classifier, need_processor
from .class_pictures import compare_pipelines
from .generation import GenerationFigures, SamplingConfig

CHUNK = 64  # batch size of the classifier
OTHERS = 9  # retained classes to draw by default
REAL = 500  # real images for the Frechet distance


class ClassifierJudge(nn.Module):
    """Classify images (B, C, H, W) in [-1, 1] with a transformers image classifier that has the generator's classes.

    The features are the classifier's last hidden state, averaged over positions.

    Raises:
        ValueError: the classifier does not return its hidden states.
    """

    def __init__(self, model: Any, processor: Any, name: str = ""):
        super().__init__()
        self.model, self.processor, self.name = model.eval(), processor, name
        sides = input_sides(model.config) or (32, 32)
        self.num_features = self.features(torch.zeros(1, input_channels(model.config), *sides)).shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes) on the CPU."""
        return torch.cat([self._outputs(part).logits.cpu() for part in images.split(CHUNK)])

    def features(self, images: Tensor) -> Tensor:
        """Return features (B, num_features) on the CPU."""
        found = []
        for part in images.split(CHUNK):
            states = self._outputs(part, output_hidden_states=True).hidden_states
            if not states or states[-1].ndim not in (3, 4):
                raise ValueError(f"{self.name} gives no hidden states (B, positions, D): name another judge")
            found.append(states[-1].mean(1 if states[-1].ndim == 3 else (2, 3)).float().cpu())  # (B, D)
        return torch.cat(found)

    @torch.no_grad()
    def _outputs(self, images: Tensor, **options: Any) -> Any:
        pictures = numpy_to_pil(((images + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).numpy())
        pixels = torch.stack([pixels_for(picture, self.model.config, self.processor) for picture in pictures])
        return self.model(pixel_values=pixels.to(self.model.device, self.model.dtype), **options)


def class_judge(name_or_path: str, revision: str | None, classes: Sequence[int]) -> ClassifierJudge:
    """Load the classifier of a folder or Hub id.

    Raises:
        ValueError, OSError: what `load_image_classifier` raises, or the classifier lacks one of `classes`.
    """
    model, processor = load_image_classifier(name_or_path, revision)
    unknown = [c for c in classes if not 0 <= c < (model.config.num_labels or 0)]
    if unknown:
        raise ValueError(
            f"{name_or_path} has {model.config.num_labels} classes and cannot read class {unknown[0]}: "
            "name a judge with the model's class numbers"
        )
    need_processor(processor, name_or_path, "save its image processor beside it")
    return ClassifierJudge(model, processor, Path(name_or_path).name)


def drawn_classes(
    forget_classes: Sequence[int], retain: SizedDataset, named: Sequence[int] | None = None
) -> list[int]:
    """Return the classes to draw: the forgotten ones, and `named` or else the first nine of the retain data.

    Raises:
        ValueError: no retained class is left, or a named one is not in the retain data.
    """
    kept = sorted(set(labels_of(retain) or []) - set(forget_classes))
    others = kept[:OTHERS] if named is None else [c for c in named if c not in forget_classes]
    lost = sorted(set(others) - set(kept))
    if lost:
        raise ValueError(f"eval_classes: class {lost[0]} is not in the retain data")
    if not others:
        raise ValueError("eval_classes: no retained class to read beside the forgotten ones")
    return sorted({*forget_classes, *others})


def judged_pipelines(
    pipelines: dict[str, Any],
    judge: ClassifierJudge,
    classes: Sequence[int],
    forget_classes: Sequence[int],
    retain: SizedDataset,
    folder: str | Path,
    draw: SamplingConfig,
    cross_check: Sequence[str] = (),
    class_names: Mapping[int, str] | None = None,
) -> dict[str, GenerationFigures]:
    """Run `compare_pipelines` on `classes` against up to 500 images of `retain`, whose items are in [-1, 1].

    Args:
        cross_check, class_names: as in `compare_pipelines`.

    Raises:
        ValueError: `retain` has no labels.
    """
    judge.to(next(iter(pipelines.values())).device)
    labels = labels_of(retain)
    if labels is None:
        raise ValueError("the retain data has no labels: give images with class numbers")
    usable = [i for i, label in enumerate(labels) if label in classes and label not in forget_classes]
    chosen = [usable[i] for i in spread(len(usable), REAL)]
    real = torch.stack([retain[i]["pixel_values"] for i in chosen])
    real_labels = torch.tensor([labels[i] for i in chosen])
    options: dict[str, Any] = {"classes": classes, "cross_check": cross_check, "class_names": class_names}
    return compare_pipelines(pipelines, judge, list(forget_classes), real, real_labels, folder, draw, **options)
