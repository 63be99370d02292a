"""Merging back: a share of the original's weights is mixed into the unlearned ones."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..methods.base import flag
from .base import Attack, Found, Subject
from .pictures import original_of
from .weights import asked_of, changed, trained_parts


@dataclass(frozen=True)
class MergeBack(Attack):
    """θ_s = (1 - s) θ + s θ_0, with θ_0 the original's weights. Nothing is learnt.

    It is what merging with another fine-tune of the original does (weight averaging, arXiv 2203.05482).
    """

    name: ClassVar[str] = "merge_back"
    families: ClassVar[tuple[str, ...]] = ("text_to_image",)
    limits: ClassVar[dict[str, str]] = {"share": "[0, 1]"}

    share: float = flag(0.4, "Share of the original's weights.")

    @property
    def budget(self) -> str:
        return f"{self.share:.0%} of the original's weights; nothing is learnt"

    def attack(self, subject: Subject, seed: int) -> Found:
        return asked_of(merged(subject.model, original_of(subject, "merging back"), self.share), subject, seed)


def merged(pipeline: Any, original: Any, share: float) -> Any:
    """A pipeline with (1 - share) of the first one's weights and `share` of the original's; exact at 0 and at 1.

    Raises:
        ValueError: the two have other weights, as where one of them has an adapter that is not merged.
    """
    parts = {part: getattr(original, part, None) for part in trained_parts(original)}
    own = {part: dict(network.named_parameters()) for part, network in parts.items() if network is not None}

    def mix(part: str, name: str, weight: Tensor) -> Tensor:
        if name not in own.get(part, {}):
            raise ValueError(f"the original has no weight {name} in its {part}: merge adapters before merging back")
        return torch.lerp(weight, own[part][name].to(weight), share)

    return changed(pipeline, mix)
