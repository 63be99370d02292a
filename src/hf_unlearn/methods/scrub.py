"""SCRUB: away from the teacher on forget data, towards it on retain data."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from .base import Loop, Method


@dataclass
class SCRUB(Method):
    """Alternate max steps on forget and min steps on retain data; the teacher is the original model.

        max: ascend   mean KL_T(original || θ) on forget, in the first `max_share` of the outer steps
        min: descend  kd mean KL_T(original || θ) + ce mean l on retain, always

    Kurmanji et al., NeurIPS 2023, arXiv 2302.09880. KL_T is the distillation loss at temperature T; a diffusion
    model takes the squared distance to the original's prediction instead. A frozen copy of the weights in memory.
    """

    name: ClassVar[str] = "scrub"
    paper: ClassVar[str] = "2302.09880"
    fast_steps: ClassVar[bool] = True
    needs_original: ClassVar[bool] = True
    distill_weight: float = field(default=0.001, metadata={"help": "kd, weight of the distillation on retain data"})
    data_weight: float = field(default=0.99, metadata={"help": "ce, weight of the retain data's own loss"})
    temperature: float = field(default=4.0, metadata={"help": "T of the distillation (classifiers)"})
    max_share: float = field(default=0.5, metadata={"help": "share of the run in which max steps are taken"})

    def __post_init__(self):
        if not 0 < self.max_share <= 1:
            raise ValueError(f"max_share must lie in (0, 1], got {self.max_share}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        self._options: dict[str, float] = {}

    @property
    def gradients(self) -> float:
        return 1 + self.max_share

    def prepare(self, objective: Any) -> None:
        super().prepare(objective)
        self._options = {"temperature": self.temperature} if objective.distils else {}

    def before_step(self, loop: Loop, batch: dict[str, Any]) -> None:
        if loop.progress < self.max_share:
            distance = loop.matching_losses(batch["forget"], to="original", **self._options).mean()
            loop.record("forget_loss", distance.detach())
            loop.fast_step(-distance, forget=True, max_norm=1.0)

    def loss(self, loop: Loop, batch: dict[str, Any]) -> Tensor:
        retain = batch["retain"][0]
        distance = loop.matching_losses(retain, to="original", **self._options).mean()
        own = loop.losses(retain).mean()
        loop.record("retain_loss", own.detach())
        return self.distill_weight * distance + self.data_weight * own
