"""Fine-tuning on the retain set, the baseline that only hopes to forget."""

from dataclasses import dataclass
from typing import ClassVar

from .base import Batch, Losses, Method, Step


@dataclass(frozen=True)
class FineTune(Method):
    """Descent on the retain loss: L = mean l(retain). Forgets only by catastrophic forgetting."""

    name: ClassVar[str] = "finetune"
    streams: ClassVar[tuple[str, ...]] = ("retain",)

    def loss(self, step: Step, batch: Batch) -> Losses:
        return Losses(retain=step.losses(batch.retain[0]).mean())
