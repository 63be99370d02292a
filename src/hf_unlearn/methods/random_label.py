"""RandomLabel: learn other labels for the forget samples while the retain samples keep theirs."""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from ..common.limits import check_limits
from .base import Batch, Losses, Method, Step, flag

MOST_RETAIN_STEPS = 200  # the batches of one outer step are in memory together


@dataclass(frozen=True)
class RandomLabel(Method):
    """L = mean l(retain) + a mean l(forget, y'), y' a random other label, drawn once for each sample.

    Graves et al., Amnesiac machine learning, arXiv 2010.10981. A diffusion model takes another class as y': its
    prediction under the own label is matched to the one under y'.

    Joint steps see the forget set as often as the retain set, whatever their sizes. With `proportional_passes`, as
    published, one forget step and K retain steps follow each other, so that both sets are passed equally often.
    """

    name: ClassVar[str] = "random_label"
    paper: ClassVar[str] = "2010.10981"
    forget_weight: float = flag(1.0, "Weight a of the forget term.")
    proportional_passes: bool = flag(False, "Pass both sets equally often, in steps of their own, not jointly.")
    retain_steps: int = flag(
        0, "Number K of retain steps after each forget step of proportional_passes; 0 takes the ratio of the sets."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, forget_weight="(0, inf)", retain_steps=f"[0, {MOST_RETAIN_STEPS}]")
        if self.retain_steps and not self.proportional_passes:
            raise ValueError("retain_steps is an option of proportional_passes: set that too")

    def sized(self, forget: int | None, retain: int | None) -> Method:
        if not self.proportional_passes or self.retain_steps or 0 in (forget, retain):
            return self  # empty sets are refused later
        if forget is None or retain is None:
            raise ValueError(f"{self.name}: proportional_passes needs sets with a length: set retain_steps")
        steps = max(1, round(retain / forget))
        if steps > MOST_RETAIN_STEPS:
            raise ValueError(
                f"{self.name}: {retain} retain and {forget} forget samples are {steps} retain batches in every step: "
                f"set retain_steps to {MOST_RETAIN_STEPS} or fewer, or no proportional_passes"
            )
        return replace(self, retain_steps=steps)

    @property
    def fast_steps(self) -> bool:
        return self.proportional_passes

    @property
    def retain_batches(self) -> int:
        return max(1, self.retain_steps)

    @property
    def batch_gradients(self) -> float:
        return 1 + self.retain_batches

    def before_step(self, step: Step, batch: Batch) -> Losses | None:
        if not self.proportional_passes:
            return None
        step.fast_step(self.forget_weight * (loss := self._relabelled(step, batch)), forget=True, max_norm=1.0)
        for retain in batch.retain[:-1]:
            step.fast_step(step.losses(retain).mean(), forget=False)
        return Losses(forget=loss)

    def loss(self, step: Step, batch: Batch) -> Losses:
        if self.proportional_passes:
            return Losses(retain=step.losses(batch.retain[-1]).mean())
        forget = self._relabelled(step, batch)
        retain = step.losses(batch.retain[0]).mean()
        return Losses(forget=forget, retain=retain, total=retain + self.forget_weight * forget)

    def _relabelled(self, step: Step, batch: Batch) -> Tensor:
        return step.losses(batch.forget, target=step.anchor(batch.forget)).mean()
