"""SCRUB: away from the teacher on forget data, towards it on retain data."""

from dataclasses import dataclass
from typing import ClassVar

from ..data.protocols import SizedDataset
from ..families import Objective
from .base import Batch, Losses, Method, RetainData, Step, flag


@dataclass(frozen=True)
class SCRUB(Method):
    """Alternate max steps on forget and min steps on retain data; the teacher is the original model.

        max: ascend   mean KL_T(original || θ) on forget, in the first `max_share` of the outer steps
        min: descend  kd mean KL_T(original || θ) + ce mean l on retain, always

    Kurmanji et al., NeurIPS 2023, arXiv 2302.09880. KL_T is the distillation loss at temperature T; a diffusion
    model takes the squared distance to the original's prediction instead. A frozen copy of the weights in memory.
    The paper's max and min steps are epochs over the forget and the retain set; here single batches alternate.
    """

    name: ClassVar[str] = "scrub"
    paper: ClassVar[str] = "2302.09880"
    fast_steps: ClassVar[bool] = True
    needs_original: ClassVar[bool] = True
    distill_weight: float = flag(0.001, "Weight kd of the distillation on retain data.")
    data_weight: float = flag(0.99, "Weight ce of the retain data's own loss.")
    temperature: float = flag(4.0, "Temperature T of the distillation; a diffusion model has none.")
    max_share: float = flag(0.5, "Share of the run in which max steps are taken.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.max_share <= 1:
            raise ValueError(f"max_share must lie in (0, 1], got {self.max_share}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    @property
    def batch_gradients(self) -> float:
        return 1 + self.max_share

    def begin(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> dict[str, float]:
        """Options of the distance to the original."""
        return {"temperature": self.temperature} if objective.distils else {}

    def before_step(self, step: Step, batch: Batch) -> Losses | None:
        if step.progress >= self.max_share:
            return None
        distance = step.losses(batch.forget, target=step.original(batch.forget), **step.state).mean()
        step.fast_step(-distance, forget=True, max_norm=1.0)
        return Losses(forget=distance)

    def loss(self, step: Step, batch: Batch) -> Losses:
        retain = batch.retain[0]
        distance = step.losses(retain, target=step.original(retain), **step.state).mean()
        own = step.losses(retain).mean()
        return Losses(retain=own, total=self.distill_weight * distance + self.data_weight * own)
