"""The data of benchmarks/augmentation.py, digits or CIFAR-10 from a folder, and the classifiers that learn them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from cifar_judge import cifar_judge
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    PreTrainedModel,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_unlearn.data.images import ArrayDataset, FlippedAndCropped
from hf_unlearn.data.sources import load_images
from hf_unlearn.evaluation.judge import digits_judge
from hf_unlearn.training.recipes import build_classifier, digits_splits

POOL, HELD_OUT = 10_000, {"validation": 1_000, "test": 2_000}  # images of CIFAR-10 that are read
CIFAR = "airplane automobile bird cat deer dog frog horse ship truck".split()

Build = Callable[[int], PreTrainedModel]


def convnext(channels: int, widths: list[int], depths: list[int]) -> PreTrainedModel:
    """Build a ConvNeXt of small images, ten classes: 0.08M weights for the digits, 0.26M for CIFAR-10."""
    config = ConvNextConfig(
        num_channels=channels, patch_size=2, num_stages=len(widths), hidden_sizes=widths, depths=depths
    )
    config.num_labels = 10
    return ConvNextForImageClassification(config)


def swin(channels: int, side: int, depths: list[int], window: int) -> PreTrainedModel:
    """Build a Swin of small images, ten classes: 0.08M weights for the digits, 0.39M for CIFAR-10."""
    heads = [2, 4, 4][: len(depths)]
    sizes: dict[str, Any] = {"embed_dim": 32, "depths": depths, "num_heads": heads, "window_size": window}
    config = SwinConfig(image_size=side, patch_size=2, num_channels=channels, mlp_ratio=2.0, **sizes)
    config.num_labels = 10
    return SwinForImageClassification(config)


def cifar_vit() -> PreTrainedModel:
    """Build a ViT with 0.31M weights for 32x32 colour images in 4x4 patches, ten classes."""
    sizes = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 192}
    config = ViTConfig(image_size=32, patch_size=4, num_channels=3, **sizes)
    config.num_labels = 10
    return ViTForImageClassification(config)


def seeded(build: Callable[..., PreTrainedModel], *arguments: Any) -> Build:
    """`build`, with initial weights that a seed draws."""

    def of(seed: int) -> PreTrainedModel:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return build(*arguments)

    return of


@dataclass(frozen=True)
class Source:
    """Data, the classifiers that learn it, and how long they train.

    steps, batch, warmup: of the training of a classifier on a few images.
    longer: {classifier: how many times as long it trains}.
    original_steps: of the training of the model that is unlearned, on all images of `train`.
    moved: whether images are flipped and shifted in training.
    """

    build: dict[str, Build]
    parts: dict[str, ArrayDataset]
    names: list[str]
    judge: Any
    steps: int
    batch: int
    warmup: int
    original_steps: int
    moved: bool
    longer: dict[str, int]

    @property
    def channels(self) -> int:
        return int(self.parts["train"].pixel_values.shape[1])

    def training(self, images: Any) -> Any:
        """Images as a training meets them."""
        return FlippedAndCropped(images) if self.moved else images


def digits_source() -> Source:
    """scikit-learn's digits, of 8x8 pixels."""
    build = {
        "resnet": functools.partial(build_classifier, "digits_resnet"),
        "vit": functools.partial(build_classifier, "digits_vit"),
        "convnext": seeded(convnext, 1, [32, 64], [2, 2]),
        "swin": seeded(swin, 1, 8, [2, 2], 2),
    }
    names = [str(label) for label in range(10)]
    return Source(build, digits_splits(), names, digits_judge(), 100, 32, 10, 300, False, {"vit": 10, "swin": 4})


def cifar_source(folder: str, judge: str) -> Source:
    """CIFAR-10: 10,000 training, 1,000 validation and 2,000 test images.

    Args:
        folder: parquet files with the columns `img` and `label`.
        judge: what benchmarks/cifar_judge.py wrote.
    """
    parts = drawn(folder, "train", {"train": POOL}) | drawn(folder, "test", HELD_OUT)
    build = {
        "resnet": functools.partial(build_classifier, "cifar_resnet"),
        "vit": seeded(cifar_vit),
        "convnext": seeded(convnext, 3, [32, 64, 128], [1, 2, 1]),
        "swin": seeded(swin, 3, 32, [2, 2, 2], 4),
    }
    return Source(build, parts, CIFAR, cifar_judge(judge), 600, 64, 60, 1500, True, {})


def drawn(folder: str, split: str, counts: dict[str, int]) -> dict[str, ArrayDataset]:
    """Parts of so many images of a split, decoded once. Its files may be sorted by class, so seed 0 draws them."""
    images, sizes = load_images(folder, 32, 3, "img", "label", split), list(counts.values())
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[: sum(sizes)].tolist()
    items = [images[i] for i in order]
    columns = (torch.stack([item[name] for item in items]).split(sizes) for name in ("pixel_values", "labels"))
    return {name: ArrayDataset(*part) for name, *part in zip(counts, *columns)}


@functools.cache
def source_of(data: str, judge: str) -> Source:
    """The source of "digits" or of a folder of CIFAR-10."""
    return digits_source() if data == "digits" else cifar_source(data, judge)
