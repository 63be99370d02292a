"""CLU: learn new data, forget other data and repair what remains, in one outer step."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..common.limits import check_limits
from ..common.losses import adaptive_weights, world_size
from ..data.protocols import SizedDataset
from ..families import Objective
from ..saliency.masks import Masks
from .base import Batch, Losses, Method, OptimizerSpec, RetainData, Samples, Step, flag
from .sfron import SFRon

LEAST_WAY = 0.05  # share of the retained level: data that lose less than this more are known already


@dataclass(frozen=True)
class CLU(SFRon):
    """One outer step t of T, after UG-CLU (Huang et al., arXiv 2505.15178):

        fast <- slow_t + S * update(clip(grad L_learn))                  learn, masked
        fast <- fast + S * update(alpha_t, clip(-grad L_forget))         forget, masked, as SFRon
        fast <- fast - eta grad (L_retain + ρ L_learn),   K times        repair, unmasked
        slow_{t+1} <- slow_t + beta (fast - slow_t)                      merge

    with S = [F > 0 and F >= gamma F_retain],   F = F_forget + s F_learn,   s = Σ F_retain / Σ F_learn

    from diagonal Fishers of the original model (`saliency.balance`), and L_learn = Σ_i w_i l_i with w_i ∝ l_i^λ, so
    that a sample counts less the better it is learnt, as a forget sample does the better it is forgotten. The paper
    names the four parts, the adaptive weights, the balanced mask and fast and slow weights. Its text, code and tables
    were not to be had: the formulas are derived from those of SFR-on, and s, ρ, the end of learning and the separate
    optimizers are ours. The model that is aimed at has seen R and the new data, so repair holds both (ρ =
    `repair_weight`): repair of R alone undoes the learning, for R says that nothing is of a new class.

    Learning has an end as forgetting has: learn samples lose no more than retained samples did before the first step,
    at the same timestep. Where no learning rate is given the length of a learn step follows from how far L_learn lies
    above that end, by the controller of the forget steps (`training.strength`), and both begin to fade together, once
    both are at their ends. eta is the longer of the two, that of the learn steps kept at its largest until they fade.

    Without data to learn this is SFRon with the same options, bit for bit. Without data to forget there is no forget
    step: continual learning with repair. All options of SFRon hold for their own parts.
    """

    name: ClassVar[str] = "clu"
    paper: ClassVar[str] = "2505.15178"
    learns: ClassVar[bool] = True

    learn_floor: float | None = flag(
        None,
        "Samples are learnt with this share left of the way to the loss of retained samples; by default 0.02 for "
        "classifiers, else 0.05.",
    )
    learn_exponent: float | None = flag(
        None,
        "Exponent lambda of the adaptive weights of learn samples; 0 takes the plain mean. By default 0.5 for "
        "classifiers, else 0.",
    )
    learn_max_norm: float = flag(1.0, "Clip the learn gradient to this norm; 0 does not clip.")
    learn_optim: Literal["separate", "shared"] = flag(
        "separate", "Give the learn steps an Adam of their own, or the one of the retain steps."
    )
    learn_learning_rate: float | None = flag(
        None, "Learning rate of the separate learn optimizer; by default learning_rate."
    )
    repair_weight: float = flag(1.0, "Weight of the learn loss in the repair steps, for what is learnt remains too.")
    mask_balance: bool = flag(True, "Bring the Fisher of learn data to the size of the retained one for the mask.")

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = {"learn_floor": "[0, 1)", "learn_exponent": "[0, inf)", "learn_max_norm": "[0, inf)"}
        check_limits(self, **limits, learn_learning_rate="[0, inf)", repair_weight="[0, inf)")

    def for_data(self, names: Collection[str]) -> Method:
        if not {"learn", "forget"} & set(names):
            raise ValueError("clu needs data to learn or to forget: pass learn_dataset or forget_dataset")
        kind = CLU if {"learn", "forget"} <= set(names) else LearnOnly if "learn" in names else SFRon
        values = {f.name: getattr(self, f.name) for f in fields(kind)}
        return Method.for_data(kind(**values), names)

    def resolved(self, objective: Objective) -> Method:
        return self._learning(super().resolved(objective), objective)

    def _learning(self, ready: Any, objective: Objective) -> Method:
        """`ready` with the options of the learn step decided."""
        classifies = objective.labels_are_targets
        floor = (0.02 if classifies else 0.05) if self.learn_floor is None else self.learn_floor
        exponent = (0.5 if classifies else 0.0) if self.learn_exponent is None else self.learn_exponent
        return replace(ready, learn_floor=floor, learn_exponent=exponent)

    @property
    def finds_strength(self) -> bool:
        plain = self.learn_optim == "separate" and self.learn_learning_rate is None
        return plain and super().finds_strength

    @property
    def _learn_floor(self) -> float:
        return 0.05 if self.learn_floor is None else self.learn_floor

    @property
    def floors(self) -> dict[str, float]:
        return {**super().floors, "learn": self._learn_floor}

    @property
    def learn_batches(self) -> int:
        return 1 + (self.retain_steps if self.repair_weight else 0)

    @property
    def batch_gradients(self) -> float:
        return super().batch_gradients + self.learn_batches

    @property
    def optimizer(self) -> OptimizerSpec:
        return replace(super().optimizer, learn_optim=self.learn_optim, learn_learning_rate=self.learn_learning_rate)

    @property
    def needs_levels(self) -> bool:
        return True

    def masks_for(self, objective: Objective, sets: Mapping[str, Any], seed: int) -> Masks | None:
        return self._masks(objective, sets, seed, balance=self.mask_balance)

    def before_step(self, step: Step, batch: Batch) -> Losses:
        learnt = self._learn_step(step, batch.learn[0])
        return replace(super().before_step(step, batch), extra={"learn_loss": learnt})

    def _repair(self, step: Step, batch: Batch, k: int) -> Losses:
        kept = super()._repair(step, batch, k)
        if not self.repair_weight:
            return kept
        learnt = step.losses(batch.learn[k + 1 if k >= 0 else k]).mean()
        return replace(kept, total=kept.scalar + self.repair_weight * learnt)

    def _learn_step(self, step: Step, learn: Samples) -> Tensor:
        """Take a masked step on Σ_i w_i l_i; return the mean of l_i."""
        assert self.learn_exponent is not None
        losses, (end, start) = step.losses(learn), step.levels(learn)
        weights = adaptive_weights(losses, -self.learn_exponent, floor=max(self.loss_floor, 1e-12), scale=end)
        weights = weights * world_size()
        loss = (weights * losses).sum()
        way = torch.maximum(start - end, LEAST_WAY * end)
        above = (loss.detach() - (weights * end).sum(), (weights * way).sum(), way.mean())
        step.learn_step(loss, self.learn_max_norm or None, above if self.finds_strength else None)
        return losses.mean()


@dataclass(frozen=True)
class LearnOnly(CLU):
    """CLU of a run that has nothing to forget: without all that serves a forget step."""

    streams: ClassVar[tuple[str, ...]] = ("retain",)

    def resolved(self, objective: Objective) -> Method:
        ready: Any = Method.resolved(self, objective)
        strength = "auto" if self.finds_strength else "rate"
        return self._learning(replace(ready, strength=strength, use_mask=self.use_mask is not False), objective)

    @property
    def finds_strength(self) -> bool:
        plain = self.learn_optim == "separate" and self.learn_learning_rate is None and self.retain_loss == "match"
        return plain and self.strength == "auto"

    @property
    def floors(self) -> dict[str, float]:
        return {"learn": self._learn_floor}

    @property
    def needs_unseen(self) -> bool:
        return False

    @property
    def still(self) -> bool:
        return self.retain_loss == "match"  # the targets are the original's, in eval mode

    @property
    def needs_baseline(self) -> bool:
        return False

    @property
    def reads_whole_weights(self) -> bool:
        return False

    @property
    def batch_gradients(self) -> float:
        return self.retain_steps + self.learn_batches

    @property
    def optimizer(self) -> OptimizerSpec:
        return replace(super().optimizer, forget_optim="shared", forget_learning_rate=None)

    def begin(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> Any:
        return None
