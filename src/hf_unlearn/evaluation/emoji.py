"""The shipped emoji model: what it was trained on, and the classifier that recognises style and object."""

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from .judge import ASSETS

EMOJI_SD = ASSETS / "emoji_sd"  # the shipped pipeline; an EmojiClassifier is in its folder `judge`
STYLES = ("fluent", "noto", "twemoji")
OBJECTS = (
    "cat",
    "butterfly",
    "elephant",
    "mushroom",
    "rose",
    "banana",
    "carrot",
    "pineapple",
    "box of fries",
    "doughnut",
    "birthday cake",
    "rocket",
    "sailboat",
    "car",
    "castle",
    "guitar",
    "basketball",
    "snowman",
    "christmas tree",
    "gem",
    "high-heeled shoe",
    "bell",
    "green apple",
    "umbrella",
)


def prompt_of(style: str, thing: str) -> str:
    """The caption of one image."""
    return f"a {style} emoji of a {thing}"


class EmojiClassifier(ModelMixin, ConfigMixin):
    """Convolutional classifier of (B, 3, 64, 64) images in [-1, 1] with two heads, for style and for object."""

    @register_to_config
    def __init__(self, num_styles: int = len(STYLES), num_objects: int = len(OBJECTS), num_features: int = 96):
        super().__init__()
        widths, layers = (3, 16, 48, 96, 128), []
        for before, after in zip(widths, widths[1:]):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, num_features), nn.ReLU())
        self.style, self.thing = nn.Linear(num_features, num_styles), nn.Linear(num_features, num_objects)
        self.num_features = num_features

    def features(self, images: Tensor) -> Tensor:
        """The features (B, num_features) that the Frechet distance compares."""
        return self.body(images)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, styles) and (B, objects)."""
        found = self.features(images)
        return self.style(found), self.thing(found)
