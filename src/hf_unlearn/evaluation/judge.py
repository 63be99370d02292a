"""The shipped digit classifier, whose accuracy and features measure generated samples."""

from pathlib import Path

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

ASSETS = Path(__file__).parent.parent / "assets"


class DigitsJudge(ModelMixin, ConfigMixin):  # type: ignore[misc]  # the two disagree on the type of config_name
    """A convolutional classifier of (B, 1, 8, 8) images in [-1, 1] with 64 features and 59k weights."""

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
        """Return the features (B, num_features) that the Frechet distance compares."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes)."""
        return self.head(self.features(images))


def digits_judge() -> DigitsJudge:
    """Load the shipped digit classifier. The README.md beside it gives its accuracy on real digits."""
    with torch.device("cpu"):
        return DigitsJudge.from_pretrained(ASSETS / "digits_judge", use_safetensors=True).eval()
