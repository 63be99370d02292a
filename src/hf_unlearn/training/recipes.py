"""Small classifiers and data for examples and comparisons, trained with `UnlearnTrainer`."""

import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import (
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from ..data.images import ArrayDataset, digits
from ..data.protocols import SizedDataset
from ..methods import FineTune, Method
from .callbacks import Progress
from .config import UnlearnConfig
from .trainer import UnlearnTrainer

SPLIT = (0.7, 0.15, 0.15)  # train, validation, test


def digits_vit() -> PreTrainedModel:
    """Build a ViT with 0.14M weights for 8x8 grey images in 2x2 patches, ten classes."""
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
    )
    config.num_labels = 10
    return ViTForImageClassification(config)


def digits_resnet() -> PreTrainedModel:
    """Build a ResNet with 0.19M weights for 8x8 grey images, ten classes."""
    return _resnet(channels=1, last_width=96)


def cifar_resnet() -> PreTrainedModel:
    """Build a ResNet with 0.3M weights for 32x32 colour images, ten classes."""
    return _resnet(channels=3, last_width=128)


def _resnet(channels: int, last_width: int) -> PreTrainedModel:
    widths = [32, 64, last_width]
    config = ResNetConfig(
        num_channels=channels, embedding_size=32, hidden_sizes=widths, depths=[1, 1, 1], layer_type="basic"
    )
    config.num_labels = 10
    return ResNetForImageClassification(config)


CLASSIFIERS: dict[str, Callable[[], PreTrainedModel]] = {
    "digits_vit": digits_vit,
    "digits_resnet": digits_resnet,
    "cifar_resnet": cifar_resnet,
}


def build_classifier(name: str, seed: int) -> PreTrainedModel:
    """Build an untrained classifier of `CLASSIFIERS` with initial weights drawn by `seed`."""
    if name not in CLASSIFIERS:
        raise ValueError(f"classifier {name!r} is not one of {', '.join(CLASSIFIERS)}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CLASSIFIERS[name]()


def digits_splits(seed: int = 0) -> dict[str, ArrayDataset]:
    """Split scikit-learn's digits, shuffled by `seed`: 1258 train, 269 validation and 270 test images."""
    data = digits()
    classes = torch.tensor(data.labels)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    ends = [round(sum(SPLIT[:k]) * len(data)) for k in range(4)]
    parts = (order[start:end] for start, end in zip(ends, ends[1:]))
    return {
        name: ArrayDataset(data.pixel_values[part], classes[part])
        for name, part in zip(("train", "validation", "test"), parts)
    }


def train_classifier(
    model: PreTrainedModel,
    dataset: SizedDataset,
    seed: int,
    output_dir: str | None = None,
    method: Method | None = None,
    given: Mapping[str, Any] | None = None,
    what: str | None = None,
    **overrides: Any,
) -> float:
    """Train `model` in place on `dataset` and return the seconds it took.

    Args:
        output_dir: where to save the model. Without it nothing is saved.
        method: what is minimised on `dataset`, the retain set of the run; default plain descent.
        given: further arguments of UnlearnTrainer, such as callbacks.
        what: title of a bar of its steps; without it none is shown.
        overrides: fields of UnlearnConfig. The defaults suit the digits.
    """
    values: dict[str, Any] = {
        "max_steps": 800,
        "per_device_train_batch_size": 64,
        "learning_rate": 2e-3,
        "warmup_steps": 50,
        "seed": seed,
        **overrides,
    }
    more = dict(given or {})
    if what is not None:
        more["callbacks"] = [*more.get("callbacks", ()), Progress(what)]
    data: Any = dataset  # transformers asks for torch's Dataset by name
    with tempfile.TemporaryDirectory() as scratch:
        config = UnlearnConfig.quiet(output_dir=output_dir or scratch, **values)
        trainer = UnlearnTrainer(model, config, method or FineTune(), None, data, **more)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        if output_dir is not None:
            trainer.save_model()
    return seconds
