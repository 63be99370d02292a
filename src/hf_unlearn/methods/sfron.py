"""SFR-on: a masked forget step on adaptively weighted losses, fast retain steps, merge into slow weights."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from ..common.limits import check_limits
from ..common.losses import adaptive_mean
from ..saliency.fisher import fisher
from ..saliency.masks import Masks, ratio_masks
from .base import Loop, Method

CHOICES = {
    "forget_loss": ("auto", "match", "ascent"),
    "retain_loss": ("match", "data"),
    "alpha_on": ("step", "loss"),
    "forget_schedule": ("cosine", "constant"),
    "bound": ("auto", "other", "own", "none"),
    "forget_optim": ("separate", "shared"),
    "mask_mode": ("update", "gradient"),
    "fisher": ("sample", "batch"),
    "slow_form": ("lookahead", "ema"),
}

# What the released DDPM code does: one Adam, a mask on gradients, no live merge, alpha inside the clipped loss.
REFERENCE = {
    "forget_loss": "ascent",
    "retain_loss": "data",
    "forget_alpha": 10.0,
    "retain_steps": 1,
    "alpha_on": "loss",
    "bound": "none",
    "loss_floor": 0.0,
    "timestep_normalise": False,
    "forget_optim": "shared",
    "mask_mode": "gradient",
    "fisher": "batch",
}
# The algorithm as written, with a merge that merges.
PAPER = {
    "forget_loss": "ascent",
    "retain_loss": "data",
    "forget_alpha": 1.0,
    "retain_steps": 1,
    "bound": "none",
    "loss_floor": 0.0,
    "timestep_normalise": False,
    "forget_optim": "shared",
    "slow_rate": 0.5,
}


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
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

    `retain_loss="data"`: L_retain is the training loss, as in the paper. `"match"`: the distance to what the
    original model predicts for the same retain sample, which holds the retained outputs where they were (the
    constraint that the paper's derivation starts from) and adds none of the noise of the data's own loss.
    """

    name: ClassVar[str] = "sfron"
    paper: ClassVar[str] = "2409.19732"
    fast_steps: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {"reference": REFERENCE, "paper": PAPER, "stable": {}}

    preset: str = _flag("stable", "starting values: reference (released code), paper, stable")
    forget_loss: str = _flag("auto", "match (another label's prediction), ascent, or auto: match if there are labels")
    retain_loss: str = _flag("match", "match (the original's prediction; a frozen copy in memory) or data")
    retain_steps: int = _flag(2, "K, retain steps after each forget step")
    forget_alpha: float = _flag(2.0, "alpha. On the loss it hardly acts under Adam with clipping: use the step")
    alpha_on: str = _flag("step", "alpha multiplies the forget 'step' or the 'loss'")
    forget_schedule: str = _flag("cosine", "alpha_t: cosine to 0 over the run, or constant")
    adaptive_exponent: float = _flag(0.5, "lambda of the adaptive weights of the ascent; 0 is the plain mean")
    loss_floor: float = _flag(1e-4, "lower bound under the (normalised) losses in the adaptive weights")
    timestep_normalise: bool = _flag(True, "weigh losses relative to the original's mean at the timestep")
    bound: str = _flag("auto", "where ascent stops: the original's loss under other or own label; auto, or none")
    bound_margin: float | None = _flag(None, "the bound is this many times that loss; default 1 for other, 2 for own")
    forget_max_norm: float = _flag(1.0, "clip of the forget gradient's norm; 0 is none")
    forget_optim: str = _flag("separate", "separate Adam for the forget step, or shared with the retain steps")
    forget_learning_rate: float | None = _flag(None, "of the separate optimizer; default learning_rate")
    use_mask: bool = _flag(True, "restrict the forget step to salient weights")
    mask_threshold: float = _flag(1.0, "gamma: salient where F_forget >= gamma F_retain")
    mask_mode: str = _flag("update", "update (masked-out weights stay bit-identical) or gradient")
    fisher: str = _flag("sample", "whose gradients are squared: each sample's, or each batch's")
    fisher_samples: int = _flag(512, "samples of each set for the Fisher; 0 is all")
    fisher_batch_size: int = _flag(32, "samples a chunk in the Fisher pass")
    slow_rate: float = _flag(1.0, "beta, the slow rate; 1 is no slow weights")
    slow_form: str = _flag("lookahead", "lookahead or ema")

    def __post_init__(self):
        if self.preset not in self.presets:
            raise ValueError(f"preset {self.preset!r} is not one of {', '.join(self.presets)}")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        check_limits(
            self,
            retain_steps="[1, inf)",
            forget_alpha="[0, inf)",
            adaptive_exponent="[0, inf)",
            loss_floor="[0, inf)",
            bound_margin="(0, inf)",
            forget_max_norm="[0, inf)",
            forget_learning_rate="[0, inf)",
            mask_threshold="[0, inf)",
            fisher_samples="[0, inf)",
            fisher_batch_size="[1, inf)",
            slow_rate="(0, 1]",
        )
        # Resolved by `prepare`, when the model is known.
        self._match, self._bound = self.forget_loss == "match", self.bound

    @classmethod
    def from_preset(cls, preset: str = "stable", **overrides: Any) -> "SFRon":
        """An SFRon with the preset's values, then `overrides`."""
        if preset not in cls.presets:
            raise ValueError(f"preset {preset!r} is not one of {', '.join(cls.presets)}")
        return cls(preset=preset, **{**cls.presets[preset], **overrides})

    def prepare(self, objective: Any) -> None:
        super().prepare(objective)
        if self.forget_loss == "match" and not objective.conditional:
            raise ValueError("forget_loss='match' needs a model with labels: set forget_loss='ascent'")
        self._match = (objective.auto_forget_loss if self.forget_loss == "auto" else self.forget_loss) == "match"
        if self.bound == "other" and not objective.conditional:
            raise ValueError("bound='other' needs a model with labels: set bound='own' or 'none'")
        if self.bound == "auto":
            self._bound = "other" if objective.conditional else "own"

    @property
    def retain_batches(self) -> int:
        return self.retain_steps

    @property
    def gradients(self) -> float:
        return 1 + self.retain_steps

    @property
    def optimizer(self) -> dict[str, Any]:
        return {
            "forget_optim": self.forget_optim,
            "forget_learning_rate": self.forget_learning_rate,
            "slow_rate": self.slow_rate,
            "slow_form": self.slow_form,
            "hard_mask": self.mask_mode == "update",
        }

    @property
    def needs_baseline(self) -> bool:
        return not self._match and (self.timestep_normalise or self._bound != "none")

    @property
    def needs_original(self) -> bool:
        return self.retain_loss == "match"

    def masks(self, objective: Any, forget: Any, retain: Any, seed: int) -> Masks | None:
        if not self.use_mask:
            return None
        options = dict(estimator=self.fisher, max_samples=self.fisher_samples, batch_size=self.fisher_batch_size)
        return ratio_masks(
            fisher(objective, forget, forget=True, seed=seed, **options),
            fisher(objective, retain, forget=False, seed=seed, **options),
            gamma=self.mask_threshold,
        )

    def before_step(self, loop: Loop, batch: dict[str, Any]) -> None:
        alpha = self.forget_alpha
        if self.forget_schedule == "cosine":
            alpha *= (1 + math.cos(math.pi * loop.progress)) / 2
        forget = batch["forget"]
        loss = loop.matching_losses(forget, to="anchor").mean() if self._match else self._ascent(loop, forget)
        loop.record("forget_loss", loss.detach())
        on_loss, on_step = (alpha, 1.0) if self.alpha_on == "loss" else (1.0, alpha)
        loop.fast_step(on_loss * loss, forget=True, max_norm=self.forget_max_norm or None, scale=on_step)
        for retain in batch["retain"][:-1]:
            loop.fast_step(self._retain(loop, retain).mean(), forget=False)

    def _retain(self, loop: Loop, retain: dict[str, Tensor]) -> Tensor:
        return loop.losses(retain) if self.retain_loss == "data" else loop.matching_losses(retain, to="original")

    def _ascent(self, loop: Loop, forget: dict[str, Tensor]) -> Tensor:
        """-Σ_i w_i l_i; samples that have reached the bound are left alone."""
        losses = loop.losses(forget)
        scale = active = None
        if self.needs_baseline:
            baseline = loop.baseline(forget)
            scale = baseline.own if self.timestep_normalise else None
            if self._bound != "none":
                margin = self.bound_margin or (1.0 if self._bound == "other" else 2.0)
                active = losses.detach() < margin * getattr(baseline, self._bound)
        return -adaptive_mean(losses, self.adaptive_exponent, floor=self.loss_floor, scale=scale, active=active)

    def loss(self, loop: Loop, batch: dict[str, Any]) -> Tensor:
        losses = self._retain(loop, batch["retain"][-1])
        loop.record("retain_loss", losses.detach().mean())
        return losses.mean()
