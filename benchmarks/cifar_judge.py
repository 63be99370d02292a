"""A judge of CIFAR-10: a published ResNet, fine-tuned for an epoch on the images at hand, which may be JPEGs.

    python benchmarks/cifar_judge.py --weights resnet32.safetensors --data_dir FOLDER --output cifar-judge.safetensors

Weights are state dicts of github.com/akamaster/pytorch_resnet_cifar10 (BSD-2-Clause), ResNet-20, 32, 44 or 56 of He et
al. 2015 (arXiv 1512.03385, section 4.2) with shortcuts that pad channels. The last line says how many test images the
judge reads right. An epoch of ResNet-32 takes about ten minutes of one core.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from hf_unlearn.data.images import FlippedAndCropped
from hf_unlearn.data.sources import load_images
from hf_unlearn.evaluation.metric import share_text

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH, RATE = 128, 0.01


class Block(nn.Module):
    """Two convolutions beside a shortcut, which takes every second pixel and pads channels where the size changes."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        stride = 1 if channels == width else 2
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.more = stride, (width - channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        found = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        same = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))
        return F.relu(found + same)


class CifarJudge(nn.Module):
    """Classify images (B, 3, 32, 32) in [-1, 1] into ten classes; 64 features."""

    num_features = 64

    def __init__(self, blocks: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        widths = [16, 16, 32, 64]
        for i, (before, width) in enumerate(zip(widths, widths[1:]), 1):
            setattr(
                self, f"layer{i}", nn.Sequential(*(Block(before if k == 0 else width, width) for k in range(blocks)))
            )
        self.linear = nn.Linear(64, 10)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """Return the features (B, 64) that the Frechet distance compares."""
        x = F.relu(self.bn1(self.conv1(((images + 1) / 2 - self.mean) / self.std)))
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 10)."""
        return self.linear(self.features(images))


def cifar_judge(path: str | Path) -> CifarJudge:
    """Load a judge from its state dict."""
    weights = load_file(path)
    judge = CifarJudge(sum(name.startswith("layer1.") and name.endswith("conv1.weight") for name in weights))
    missing, unknown = judge.load_state_dict(weights, strict=False)
    if unknown or any(not name.endswith("num_batches_tracked") for name in missing):
        raise ValueError(f"{path} holds no ResNet of CIFAR-10: name one of the published state dicts")
    return judge.eval()


@torch.no_grad()
def read(judge: CifarJudge, images: Tensor) -> Tensor:
    """Return the classes (N,) that the judge reads."""
    return torch.cat([judge(part).argmax(1) for part in images.split(500)])


def fine_tune(judge: CifarJudge, images: Any, epochs: int, seed: int) -> None:
    """Train by momentum with flips and crops, at a rate that falls to 0."""
    torch.manual_seed(seed)
    loader = DataLoader(FlippedAndCropped(images), BATCH, shuffle=True, drop_last=True)
    steps = epochs * len(loader)
    optimizer = torch.optim.SGD(judge.parameters(), RATE, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    judge.train()
    with tqdm(total=steps) as bar:
        for _ in range(epochs):
            for batch in loader:
                F.cross_entropy(judge(batch["pixel_values"]), batch["labels"]).backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                bar.update()
    judge.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="state dict of a published ResNet")
    parser.add_argument("--data_dir", required=True, help="folder of CIFAR-10 as parquet files")
    parser.add_argument("--output", required=True, help="safetensors file of the judge")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    judge = cifar_judge(options.weights)
    train, test = (load_images(options.data_dir, 32, 3, "img", "label", split) for split in ("train", "test"))
    held_out, labels = torch.stack([item["pixel_values"] for item in test]), torch.tensor(test.labels)

    def said() -> str:
        return share_text(float((read(judge, held_out) == labels).float().mean()), len(test))

    print(f"test images read right as published: {said()}", flush=True)
    fine_tune(judge, train, options.epochs, options.seed)
    save_file(judge.state_dict(), options.output)
    print(f"test images read right: {said()}")


if __name__ == "__main__":
    main()
