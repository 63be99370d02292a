"""Fine-tuning on the retain set, the baseline that only hopes to forget."""

from dataclasses import dataclass
from typing import ClassVar

from .base import Batch, Losses, Method, Step


@dataclass(frozen=True)
class FineTune(Method):
    """Descent on the retain loss: L = mean l(retain). Forgets only by catastrophic forgetting.

    With data to learn it is fine-tuning with replay: L = mean l(retain) + mean l(learn).
    """

    name: ClassVar[str] = "finetune"
    streams: ClassVar[tuple[str, ...]] = ("retain",)
    learns: ClassVar[bool] = True

    def loss(self, step: Step, batch: Batch) -> Losses:
        retain = step.losses(batch.retain[0]).mean()
        if not batch.learn:
            return Losses(retain=retain)
        learn = step.losses(batch.learn[0]).mean()
        return Losses(retain=retain, extra={"learn_loss": learn}, total=retain + learn)
