"""Fine-tuning on the retain set, the baseline that only hopes to forget."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .base import Loop, Method


@dataclass
class FineTune(Method):
    """Descent on the retain loss: L = mean l(retain). Forgets only by catastrophic forgetting."""

    name: ClassVar[str] = "finetune"
    streams: ClassVar[tuple[str, ...]] = ("retain",)

    def loss(self, loop: Loop, batch: dict[str, Any]) -> Tensor:
        losses = loop.losses(batch["retain"][0])
        loop.record("retain_loss", losses.detach().mean())
        return losses.mean()
