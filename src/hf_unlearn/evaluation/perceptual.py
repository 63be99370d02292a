"""LPIPS: how different two images look, by AlexNet's features under weights learnt from human judgements.

torchmetrics ships the learnt weights. AlexNet's weights are a file of 244 MB that no package ships. The network is
defined here, so that this file is all that is needed.
"""

from collections.abc import Sequence
from functools import reduce
from importlib.resources import as_file, files
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.images import to_pixels
from .extras import need, weights_file
from .inception import load_published
from .metric import Metric, version_of

URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
INSTEAD = "leave LPIPS out"
SMALLEST = 64  # pixels; the last layers of smaller images would be empty


def alexnet() -> nn.Sequential:
    """Build AlexNet up to its last map, with the names of its published file (arXiv 1404.5997)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(256, 256, 3, padding=1), nn.ReLU())


class LPIPS:
    """Learned perceptual distance of image pairs (arXiv 1801.03924), version 0.1 on AlexNet. 0 is the same image.

    Args:
        weights: AlexNet's file alexnet-owt-7be5be79.pth, or "download".

    Raises:
        OSError: torchmetrics does not import, the file does not exist, or it cannot be downloaded.
        ValueError: the file holds other weights.
    """

    def __init__(self, weights: str | Path):
        need("eval", "LPIPS", INSTEAD)
        path = weights_file(weights, URL, "LPIPS", INSTEAD)
        network = alexnet()
        load_published(network, path, "AlexNet's ImageNet weights", prefix="features.")
        self.network = network.eval().requires_grad_(False)
        self.device, self.file = torch.device("cpu"), path.name
        with as_file(files("torchmetrics.functional.image") / "lpips_models/alex.pth") as learnt:
            heads = torch.load(learnt, "cpu", weights_only=True)
        self.heads = [heads[f"lin{layer}.model.1.weight"].view(-1) for layer in range(5)]

    def to(self, device: str | torch.device) -> "LPIPS":
        """Move the networks to `device`."""
        self.device, self.network = torch.device(device), self.network.to(device)
        self.heads = [head.to(device) for head in self.heads]
        return self

    def layers(self, images: Tensor) -> list[Tensor]:
        """Return the five maps after a ReLU, (B, C, h, w), with the features of each position scaled to length 1."""
        shift = torch.tensor([-0.030, -0.088, -0.188], device=images.device).view(3, 1, 1)
        scale = torch.tensor([0.458, 0.448, 0.450], device=images.device).view(3, 1, 1)
        x, maps = (images - shift) / scale, []
        for layer in self.network:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                maps.append(x / torch.sqrt(x.square().sum(1, keepdim=True) + 1e-8))
        return maps

    @torch.no_grad()
    def distances(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the distances (B,) of images (B, 3, H, W) in [-1, 1]. Those under 64 pixels are enlarged to 64."""
        pair = [images.float().to(self.device) for images in (one, other)]
        if min(one.shape[2:]) < SMALLEST:
            pair = [F.interpolate(images, (SMALLEST, SMALLEST), mode="bilinear") for images in pair]
        differences = [(a - b).square() for a, b in zip(*(self.layers(images) for images in pair))]
        layers = [torch.einsum("bchw,c->bhw", d, w).mean((1, 2)) for d, w in zip(differences, self.heads)]
        return reduce(torch.add, layers).cpu()

    def __call__(self, ones: Sequence[Image], others: Sequence[Image], batch_size: int = 32) -> Metric:
        """Average the distance over pairs. Raises ValueError for no images or unequal counts."""
        if len(ones) != len(others) or not len(ones):
            raise ValueError(f"LPIPS compares pairs of pictures, got {len(ones)} and {len(others)}")
        parts = []
        for start in range(0, len(ones), batch_size):
            sides = (side[start : start + batch_size] for side in (ones, others))
            parts.append(self.distances(*(torch.stack([to_pixels(p, None, 3) for p in side]) for side in sides)))
        return Metric(
            torch.cat(parts).mean().item(),
            "LPIPS 0.1 on AlexNet, mean over pairs of pictures; 0 is the same picture",
            samples=len(ones),
            library=version_of("torch", "torchmetrics"),
            details={"weights": self.file},
        )
