"""What a network must offer to be measured with."""

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor, nn


class FeatureNetwork(Protocol):
    """Maps images (B, C, H, W) in [-1, 1] to features (B, num_features)."""

    num_features: int

    def features(self, images: Tensor, /) -> Tensor: ...


class SampleClassifier(FeatureNetwork, Protocol):
    """A classifier of images: calling it gives logits (B, classes)."""

    def __call__(self, images: Tensor, /) -> Tensor: ...


class NamedNetwork(FeatureNetwork, Protocol):
    """A network whose name and label appear in the metrics that are measured with it."""

    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...
