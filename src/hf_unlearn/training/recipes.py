"""Small classifiers and data to measure on: built from a configuration, trained by the one loop."""

import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import (
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from ..data.images import ArrayDataset, digits
from ..methods import FineTune
from .config import UnlearnConfig
from .trainer import UnlearnTrainer

SPLIT = (0.7, 0.15, 0.15)  # train, validation, test


def digits_vit() -> PreTrainedModel:
    """0.14M weights, 2x2 patches of 8x8 grey images, ten classes."""
    sizes = dict(hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128)
    return ViTForImageClassification(ViTConfig(image_size=8, patch_size=2, num_channels=1, num_labels=10, **sizes))


def digits_resnet() -> PreTrainedModel:
    """0.19M weights, 8x8 grey images, ten classes."""
    sizes = dict(embedding_size=32, hidden_sizes=[32, 64, 96], depths=[1, 1, 1], layer_type="basic")
    return ResNetForImageClassification(ResNetConfig(num_channels=1, num_labels=10, **sizes))


def cifar_resnet() -> PreTrainedModel:
    """0.3M weights, 32x32 colour images, ten classes."""
    sizes = dict(embedding_size=32, hidden_sizes=[32, 64, 128], depths=[1, 1, 1], layer_type="basic")
    return ResNetForImageClassification(ResNetConfig(num_channels=3, num_labels=10, **sizes))


CLASSIFIERS: dict[str, Callable[[], PreTrainedModel]] = {
    "digits_vit": digits_vit,
    "digits_resnet": digits_resnet,
    "cifar_resnet": cifar_resnet,
}


def build_classifier(name: str, seed: int) -> PreTrainedModel:
    """An untrained classifier of `CLASSIFIERS`; the seed decides its first weights."""
    if name not in CLASSIFIERS:
        raise ValueError(f"classifier {name!r} is not one of {', '.join(CLASSIFIERS)}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CLASSIFIERS[name]()


def digits_splits(seed: int = 0) -> dict[str, ArrayDataset]:
    """scikit-learn's digits, shuffled by `seed`: 1258 train, 269 validation and 270 test images."""
    data = digits()
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    ends = [round(sum(SPLIT[:k]) * len(data)) for k in range(4)]
    parts = (order[start:end] for start, end in zip(ends, ends[1:]))
    return {
        name: ArrayDataset(data.pixel_values[part], data.label_tensor[part])
        for name, part in zip(("train", "validation", "test"), parts)
    }


def train_classifier(
    model: PreTrainedModel, dataset: Dataset, seed: int, output_dir: str | None = None, **overrides: Any
) -> float:
    """Train in place on all of `dataset` and return the seconds it took; nothing is saved without `output_dir`.

    `overrides` are fields of UnlearnConfig; the defaults suit the digits.
    """
    values: dict[str, Any] = {
        "max_steps": 800,
        "per_device_train_batch_size": 64,
        "learning_rate": 2e-3,
        "warmup_steps": 50,
        "seed": seed,
        **overrides,
    }
    with tempfile.TemporaryDirectory() as scratch:
        config = UnlearnConfig.quiet(output_dir=output_dir or scratch, **values)
        trainer = UnlearnTrainer(model, config, FineTune(), None, dataset)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        if output_dir is not None:
            trainer.save_model()
    return seconds
