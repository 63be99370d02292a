"""Sequences on class-conditional UNet2D pipelines: a key is the number of a class."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...data.pairs import collate, labels_of, subset
from ...data.protocols import SizedDataset
from ...families.ddpm.objective import NoisePrediction
from ...families.denoising import Denoising
from ...families.held import Held
from .standing import Standing


class ClassPainter:
    """A pipeline that draws classes.

    A forgotten class draws the next class that is known, round the end.

    Args:
        pipeline: class-conditional, around a UNet2DModel.
        data: labelled images to learn classes from; None where nothing is learnt.
        num_inference_steps, guidance_scale: of what is replayed; guidance by default that of the pipeline.

    Raises:
        ValueError: the model embeds no classes.
    """

    kind: ClassVar[str] = "classes"
    tag: ClassVar[str] = "unconditional-image-generation"

    def __init__(
        self,
        pipeline: Any,
        data: SizedDataset | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float | None = None,
        batch_size: int = 128,
    ):
        self.pipeline, self.data = pipeline, data
        self.settings = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
        self.batch_size = batch_size
        labels = NoisePrediction(pipeline).class_labels
        if len(labels) < 2:
            raise ValueError("the model embeds no classes, so no request can name what to forget")
        self.labels = None if data is None else labels_of(data)
        if data is not None and self.labels is None:
            raise ValueError("the data to learn classes from has no labels: name a label column")
        self.every = tuple(map(str, labels))

    @property
    def network(self) -> nn.Module:
        return self.pipeline.unet

    def pairs(self, part: Any, standing: Standing) -> dict[str, str]:
        if not part.classes or part.tasks or part.samples:
            raise ValueError(f"{part.text}: a request to a class-conditional model names classes")
        keys = list(map(str, part.classes))
        unknown = [key for key in keys if key not in self.every]
        if unknown:
            raise ValueError(f"there is no class {unknown[0]}: the model has {', '.join(self.every)}")
        left = [key for key in standing.known if key not in keys]
        return {key: _next(key, left) for key in keys} if left else dict.fromkeys(keys, keys[0])

    def check_learnable(self, part: Any) -> None:
        if self.labels is None:
            raise ValueError(f"{part.text}: there is no data to learn from, name it")
        lacking = [label for label in part.classes if label not in self.labels]
        if lacking:
            raise ValueError(f"the data has no image of class {lacking[0]}")

    def objective(self, keys: Sequence[str], anchors: Mapping[str, str], held: Held | None = None) -> Denoising:
        made = NoisePrediction(self.pipeline)
        made.chosen = {int(key): int(anchor) for key, anchor in anchors.items()}
        made.held = held
        return made

    def number(self, objective: Denoising, key: str) -> int:
        return int(key)

    @torch.no_grad()
    def draw(self, keys: Sequence[str], seed: int) -> Tensor:
        self.pipeline.set_progress_bar_config(disable=True)
        found = []
        for start in range(0, len(keys), self.batch_size):
            part = [int(key) for key in keys[start : start + self.batch_size]]
            generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
            drawn = self.pipeline(part, generator=generators, output_type="pt", **self.settings).images
            found.append(drawn.float().cpu() * 2 - 1)
        return torch.cat(found)

    def images(self, part: Any) -> SizedDataset:
        assert self.data is not None and self.labels is not None  # `check_learnable`
        return subset(self.data, [i for i, label in enumerate(self.labels) if label in part.classes])

    def encoded(self, images: SizedDataset, folder: Path) -> Tensor:
        return collate([images[i] for i in range(len(images))])["pixel_values"]

    def key_of(self, images: SizedDataset, keys: Sequence[str], position: int) -> str:
        return str(int(images[position]["labels"]))


def _next(key: str, others: Sequence[str]) -> str:
    numbers = sorted(map(int, others))
    return str(next((number for number in numbers if number > int(key)), numbers[0]))
