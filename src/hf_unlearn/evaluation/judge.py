"""A small digit classifier that reads generated samples: its accuracy and its features are the measuring rod."""

from pathlib import Path

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

ASSETS = Path(__file__).parent.parent / "assets"


class DigitsJudge(ModelMixin, ConfigMixin):
    """Convolutional classifier of (B, 1, 8, 8) images in [-1, 1]; 64 features, 59k weights."""

    @register_to_config
    def __init__(self, num_classes: int = 10, num_features: int = 64):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 48, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(48, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(256, num_features),
            nn.ReLU(),
        )
        self.head = nn.Linear(num_features, num_classes)
        self.num_features = num_features

    def features(self, images: Tensor) -> Tensor:
        """(B, num_features), what the Frechet distance compares."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes)."""
        return self.head(self.features(images))


def digits_judge() -> DigitsJudge:
    """The shipped judge (the README.md beside it says how well it reads real digits)."""
    with torch.device("cpu"):
        return DigitsJudge.from_pretrained(ASSETS / "digits_judge", use_safetensors=True).eval()
