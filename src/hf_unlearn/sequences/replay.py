"""Learning beside a replay memory: the new samples are a trainer's learn set, the memory its retain set."""

from dataclasses import dataclass
from typing import Any, ClassVar

from ..common.losses import masked_mean
from ..data.pairs import mixed_batch
from ..methods.base import Batch, Losses, Method, Step, flag


@dataclass(frozen=True)
class ExperienceReplay(Method):
    """L = mean l(new) + a mean l(memory), one mixed batch (Chaudhry et al., arXiv 1902.10486).

    One batch, so that the statistics of a BatchNorm are of both.
    """

    name: ClassVar[str] = "experience_replay"
    paper: ClassVar[str] = "1902.10486"
    streams: ClassVar[tuple[str, ...]] = ("retain",)
    learns: ClassVar[bool] = True
    memory_weight: float = flag(1.0, "Weight a of the loss on the memory.")

    def loss(self, step: Step, batch: Batch) -> Losses:
        losses, is_new = new_and_known(step, batch)
        new, known = masked_mean(losses, is_new), masked_mean(losses, ~is_new)
        return Losses(retain=known, extra={"learn_loss": new}, total=new + self.memory_weight * known)


def new_and_known(step: Step, batch: Batch) -> tuple[Any, Any]:
    """Losses (2B,) of the new and the known samples of a batch, and a mask (2B,) that is True on the new ones."""
    mixed, is_new = mixed_batch(batch.learn[0], batch.retain[0])
    return step.losses(mixed), is_new
