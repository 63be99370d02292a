"""Judging emoji: which style, which object; and the figures of UnlearnCanvas (arXiv 2402.11846) on them."""

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ..data.emoji import OBJECTS, STYLES, prompt_of
from .generation import frechet_distance
from .judge import ASSETS

EMOJI_SD = ASSETS / "emoji_sd"  # the shipped pipeline; its `judge` is an EmojiJudge


class EmojiJudge(ModelMixin, ConfigMixin):
    """Convolutional classifier of (B, 3, 64, 64) pictures in [-1, 1] with two heads, for style and for object."""

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
        """(B, num_features), what the Frechet distance compares."""
        return self.body(images)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, styles) and (B, objects)."""
        found = self.features(images)
        return self.style(found), self.thing(found)


@torch.no_grad()
def draw_grid(pipeline: Any, per_prompt: int, steps: int, guidance: float, seed: int = 0, batch_size: int = 36):
    """(images (N, 3, 64, 64) in [-1, 1], styles, objects): `per_prompt` pictures of every style x object.

    Picture j of a prompt has the same noise for every model.
    """
    pipeline.set_progress_bar_config(disable=True)
    asked = [(s, o, j) for s in range(len(STYLES)) for o in range(len(OBJECTS)) for j in range(per_prompt)]
    images = []
    for start in range(0, len(asked), batch_size):
        part = asked[start : start + batch_size]
        generators = [torch.Generator().manual_seed(seed * 1_000_000 + s * 10_000 + o * 100 + j) for s, o, j in part]
        prompts = [prompt_of(STYLES[s], list(OBJECTS)[o]) for s, o, _ in part]
        options = dict(num_inference_steps=steps, guidance_scale=guidance, output_type="pt")
        images.append(pipeline(prompts, generator=generators, **options).images.float().cpu() * 2 - 1)
    styles, things, _ = torch.tensor(asked).T
    return torch.cat(images), styles, things


@torch.no_grad()
def canvas_figures(
    judge: EmojiJudge,
    images: Tensor,
    styles: Tensor,
    things: Tensor,
    forgotten: tuple[str, int],
    real: tuple[Tensor, Tensor, Tensor],
) -> dict[str, float]:
    """UA, IRA and CRA (shares) and the Frechet distance of the retained pictures in the judge's features.

    UA: share of pictures asked for as the forgotten style or object that are not read as it. IRA: accuracy in the
    forgotten one's own domain, of all others. CRA: accuracy in the other domain, of all others.

    Args:
        forgotten: ("style", number) or ("object", number).
        real: (images, styles, objects) of real pictures, of which the retained ones are compared with.
    """
    read = [torch.cat(part).argmax(1) for part in zip(*(judge(batch) for batch in images.split(256)))]
    kind, number = forgotten
    own, other = (0, 1) if kind == "style" else (1, 0)
    asked = (styles, things)
    gone = asked[own] == number
    correct = [(read[k] == asked[k]).double() for k in (0, 1)]
    kept_real = real[0][real[1 + own] != number]
    return {
        "UA": 1 - correct[own][gone].mean().item(),
        "IRA": correct[own][~gone].mean().item(),
        "CRA": correct[other][~gone].mean().item(),
        "frechet": frechet_distance(judge, kept_real, images[~gone]),
    }
