"""SFR-on: a masked forget step on adaptively weighted losses, fast retain steps, merge into slow weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..common.limits import check_limits
from ..common.losses import global_sum, world_size
from ..data.protocols import SizedDataset
from ..families import Objective
from ..saliency.balance import balanced_masks
from ..saliency.masks import Masks
from .base import Batch, Losses, Method, OptimizerSpec, RetainData, Samples, Step, flag
from .forget_losses import Forget, ascent, matched, unseen
from .look_ahead import adam_shift, inner_gradient
from .sfron_settings import LIMITS, PAPER, REFERENCE


@dataclass(frozen=True)
class SFRon(Method):
    """One outer step t of T (Huang et al., NeurIPS 2024, arXiv 2409.19732, algorithm 1):

        fast <- slow_t + S * update(alpha_t, clip(-grad L_forget))          forget, masked
        fast <- fast - eta grad L_retain,   K times                          retain, unmasked
        slow_{t+1} <- slow_t + beta (fast - slow_t)                          merge

    with the mask S = [F_forget > 0 and F_forget >= gamma F_retain] from diagonal Fishers of the original model.

    `forget_loss="ascent"`: L_forget = -Σ_i w_i l_i with w_i ∝ 1 / (l_i^λ + eps), the paper's form for classifiers
    and DDPM. `"match"`: what the network predicts for a forget image under its label is matched to what it predicts,
    without gradient, for the same noisy image under another label: the paper's form for text-to-image. Ascent has
    no end and what it draws instead is arbitrary; matching stops by itself. `"auto"`: match where the model has
    labels, else ascent.

    `forget_loss="unseen"`, for classifiers: the divergence from what the original would say of the samples had it
    never seen them (`families.classifier.unseen`), in eval mode, and without a mask unless one is asked for: that of
    samples chosen at random keeps the run from its end.

    `strength="auto"`: the length of a forget step follows from how far its loss lies above its end
    (`training.strength`), and eta is the same length; no learning rate is needed. `"rate"`: the learning rates of the
    arguments, alpha and its schedule. A given learning rate means `"rate"`, and so does an option that has no end
    (ascent without a bound), a shared optimizer, a forget learning rate, or `retain_loss="data"`.

    `retain_loss="data"`: L_retain is the training loss, as in the paper. `"match"`: the distance to what the
    original model predicts for the same retain sample, which holds the retained outputs where they were (the
    constraint that the paper's derivation starts from) and adds none of the noise of the data's own loss.

    `resist_relearning` w looks ahead through a step that teaches the forget samples again, as meta-unlearning (arXiv
    2410.12777) and ResAlign (arXiv 2507.16302) do, with the end of L_forget in place of their ascent without one:

        (L_forget(θ) + w L_forget(θ_FT)) / (1 + w),   θ_FT = θ - τ g / (|g| + eps),   g = ∇L_data(θ) on forget samples
    The step is Adam's first one, and a constant. It did not make relearning slower: docs/emoji.md has the table.

    `adversary`: every second sample of a matched forget batch is met under an embedding too, which an adversary learns
    beside the run (`training.adversary`), so that no other prompt brings back what is forgotten.
    """

    name: ClassVar[str] = "sfron"
    paper: ClassVar[str] = "2409.19732"
    fast_steps: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {"reference": REFERENCE, "paper": PAPER, "stable": {}}

    preset: Literal["stable", "reference", "paper"] = flag(
        "stable", "Start from these values: the package's own, the released code's, or the paper's."
    )
    strength: Literal["auto", "rate"] = flag(
        "auto", "Find the strength from how far the forget loss is from its end, or take a learning rate."
    )
    forget_loss: Literal["auto", "match", "ascent", "unseen"] = flag(
        "auto",
        "Match another label's prediction, ascend the loss, or (classifiers) match what the model would say of unseen "
        "samples; auto takes what the model has.",
    )
    retain_loss: Literal["match", "data"] = flag(
        "match", "Match the original's prediction, which keeps a frozen copy in memory, or take the training loss."
    )
    retain_steps: int = flag(2, "Number K of retain steps after each forget step.")
    forget_alpha: float = flag(2.0, "Strength alpha of the forget step.")
    alpha_on: Literal["step", "loss"] = flag(
        "step", "Multiply the forget step or its loss by alpha; under Adam with clipping the loss hardly feels it."
    )
    forget_schedule: Literal["cosine", "constant"] = flag(
        "cosine", "Let alpha fall to 0 over the run, or keep it constant."
    )
    adaptive_exponent: float = flag(0.5, "Exponent lambda of the adaptive weights; 0 takes the plain mean.")
    loss_floor: float = flag(1e-4, "Lower bound of the (normalised) losses in the adaptive weights.")
    timestep_normalise: bool = flag(True, "Weigh losses relative to the original's mean at the timestep.")
    bound: Literal["auto", "other", "own", "none"] = flag(
        "auto", "Stop ascent at the original's loss under another label, or under its own; auto takes what there is."
    )
    bound_margin: float | None = flag(
        None, "The bound is this many times that loss; by default 1 for another label and 2 for its own."
    )
    resist_relearning: float = flag(
        0.0, "Weight w of forgetting also where a step of relearning leads; 0 is off, for no gain was seen."
    )
    relearning_rate: float = flag(3e-4, "Learning rate of that step, which is as the first one of Adam.")
    adversary: bool | None = flag(
        None,
        "Forget half of the samples also under embeddings that an adversary learns; by default where the anchor is "
        "matched and the strength found.",
    )
    forget_max_norm: float = flag(1.0, "Clip the forget gradient to this norm; 0 does not clip.")
    forget_optim: Literal["separate", "shared"] = flag(
        "separate", "Give the forget steps an Adam of their own, or the one of the retain steps."
    )
    forget_learning_rate: float | None = flag(
        None, "Learning rate of the separate optimizer; by default learning_rate."
    )
    use_mask: bool | None = flag(
        None, "Restrict the forget step to salient weights; by default all do but forget_loss unseen."
    )
    mask_threshold: float = flag(1.0, "A weight is salient where F_forget is at least gamma times F_retain.")
    mask_mode: Literal["update", "gradient"] = flag(
        "update", "Mask the update, so that masked-out weights stay bit-identical, or only the gradient."
    )
    fisher: Literal["sample", "batch"] = flag("sample", "Square the gradient of each sample, or of each batch.")
    fisher_samples: int = flag(512, "Number of samples of each set for the Fisher; 0 takes all.")
    fisher_batch_size: int = flag(32, "Samples in one chunk of the Fisher pass.")
    slow_rate: float = flag(1.0, "Slow rate beta of the merge; 1 keeps no slow weights.")
    slow_form: Literal["lookahead", "ema"] = flag("lookahead", "How an outer step is merged into the slow weights.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, **LIMITS)

    @classmethod
    def from_preset(cls, preset: str = "stable", **overrides: Any) -> "SFRon":
        """The same as SFRon(preset=preset, **overrides)."""
        return cls(preset=preset, **overrides)  # type: ignore[arg-type]

    def resolved(self, objective: Objective) -> Method:
        super().resolved(objective)
        if self.forget_loss == "match" and not objective.conditional:
            raise ValueError("forget_loss='match' needs a model with labels: set forget_loss='ascent'")
        if self.bound == "other" and not objective.conditional:
            raise ValueError("bound='other' needs a model with labels: set bound='own' or 'none'")
        if self.forget_loss == "unseen" and not objective.labels_are_targets:
            raise ValueError("forget_loss='unseen' is for classifiers: leave it out")
        bound = ("other" if objective.conditional else "own") if self.bound == "auto" else self.bound
        ends = bound != "none" if self.forget_loss == "ascent" else self.forget_loss != "auto" or objective.ends
        strength: Literal["auto", "rate"] = "auto" if self.finds_strength and ends else "rate"
        forget_loss = objective.auto_forget_loss if self.forget_loss == "auto" else self.forget_loss
        if self.forget_loss == "auto" and strength == "auto" and objective.knows_unseen:
            forget_loss = "unseen"
        can = forget_loss == "match" and bool(getattr(objective, "conditions", ()))
        if self.adversary and not can:
            raise ValueError("adversary is for matching under labels that the network embeds: leave it out")
        return replace(
            self,
            adversary=can and strength == "auto" if self.adversary is None else self.adversary,
            strength=strength,
            forget_loss=forget_loss,
            use_mask=forget_loss != "unseen" if self.use_mask is None else self.use_mask,
            bound=bound,
            bound_margin=self.bound_margin or {"other": 1.0, "own": 2.0, "none": None}[bound],
        )

    @property
    def finds_strength(self) -> bool:
        plain = self.forget_optim == "separate" and self.forget_learning_rate is None and self.retain_loss == "match"
        return plain and self.strength == "auto"

    @property
    def floor(self) -> float:
        return 0.05 if self.forget_loss == "unseen" else 0.1  # a divergence grows with the logarithm of a probability

    @property
    def equal_steps(self) -> bool:
        return self.forget_loss == "unseen"

    @property
    def needs_unseen(self) -> bool:
        return self.forget_loss == "unseen"

    @property
    def synthesised_from(self) -> str:
        return "both" if self.finds_strength else self.forget_images

    @property
    def still(self) -> bool:
        return self.needs_unseen  # whose targets are the original's, in eval mode

    def at_rate(self) -> "SFRon":
        return replace(self, strength="rate")

    @property
    def retain_batches(self) -> int:
        return self.retain_steps

    @property
    def batch_gradients(self) -> float:
        ahead = 2 * (self.resist_relearning > 0)  # to look ahead, and the loss there
        return 1 + self.retain_steps + ahead + bool(self.adversary)  # half a batch for it to learn, and half to forget

    @property
    def optimizer(self) -> OptimizerSpec:
        return OptimizerSpec(
            forget_optim=self.forget_optim,
            forget_learning_rate=self.forget_learning_rate,
            slow_rate=self.slow_rate,
            slow_form=self.slow_form,
            hard_mask=self.mask_mode == "update",
        )

    @property
    def reads_whole_weights(self) -> bool:
        return self.resist_relearning > 0

    @property
    def needs_baseline(self) -> bool:
        ascends = self.forget_loss == "ascent" and (self.timestep_normalise or self.bound != "none")
        return ascends or (self.forget_loss == "match" and self.finds_strength)

    @property
    def needs_original(self) -> bool:
        return self.retain_loss == "match" or self.needs_unseen

    def begin(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> Any:
        return objective.unseen_levels(forget) if self.forget_loss == "unseen" else None

    def compute_masks(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> Masks | None:
        return self._masks(objective, {"forget": forget, "retain": retain}, seed)

    def _masks(self, objective: Objective, sets: Mapping[str, Any], seed: int, balance: bool = True) -> Masks | None:
        options = (self.mask_threshold, self.fisher, self.fisher_samples, self.fisher_batch_size, seed)
        return None if self.use_mask is False else balanced_masks(objective, sets, *options, balance=balance)

    def before_step(self, step: Step, batch: Batch) -> Losses:
        loss = self._forget_step(step, batch.forget) if batch.forget else None
        for k in range(len(batch.retain) - 1):
            step.fast_step(self._repair(step, batch, k).scalar, forget=False)
        return Losses(forget=loss)

    def _forget_step(self, step: Step, forget: Samples) -> Tensor:
        (loss, above), norm = self._forget(step, forget), self.forget_max_norm or None
        if self.finds_strength:
            step.fast_step(loss, forget=True, max_norm=norm, above=above)
        else:
            falls = self.forget_schedule == "cosine"
            alpha = self.forget_alpha * ((1 + math.cos(math.pi * step.progress)) / 2 if falls else 1.0)
            on_loss, on_step = (alpha, 1.0) if self.alpha_on == "loss" else (1.0, alpha)
            step.fast_step(on_loss * loss, forget=True, max_norm=norm, scale=on_step)
        return loss

    def loss(self, step: Step, batch: Batch) -> Losses:
        return self._repair(step, batch, -1)

    def _repair(self, step: Step, batch: Batch, k: int) -> Losses:
        target = step.original(batch.retain[k]) if self.retain_loss == "match" else None
        options: dict[str, Any] = {"as_unseen": True} if self.needs_unseen and target is not None else {}
        return Losses(retain=step.losses(batch.retain[k], target=target, **options).mean())

    def _forget(self, step: Step, forget: Samples) -> Forget:
        """The forget loss; both numbers are means with those ahead, where the distance is the original's at most."""
        at = {"match": matched, "unseen": unseen, "ascent": ascent}[self.forget_loss](self, step, forget)
        if not (weight := self.resist_relearning):
            return at(None)
        _, gradient = inner_gradient(step, lambda: step.losses(forget).mean())
        (here, above), (ahead, there) = at(None), at(adam_shift(gradient, self.relearning_rate))
        if above is not None and there is not None:
            most = torch.minimum(*map(global_sum, there[:2])) / world_size()  # of the global batch
            above = ((above[0] + weight * most) / (1 + weight), *above[1:])
        return (here + weight * ahead) / (1 + weight), above
