"""SFR-on: adaptively weighted, masked ascent on forget data, fast retain steps, merge into slow weights."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from ..losses import adaptive_mean
from ..saliency import Masks, fisher, ratio_masks
from .base import Loop, Method


@dataclass
class SFRon(Method):
    """One outer step t of T (Huang et al., NeurIPS 2024, arXiv 2409.19732, algorithm 1):

        fast <- slow_t + S * update(alpha_t, clip(grad Σ_i w_i l_i)),   w_i ∝ 1 / (l_i^λ + eps)     (forget)
        fast <- fast - eta grad L_retain,   K times, unmasked                                          (retain)
        slow_{t+1} <- slow_t + beta (fast - slow_t)                                                     (merge)

    with the mask S = [F_forget > 0 and F_forget >= gamma F_retain] from diagonal Fishers of the original model.
    """

    name: ClassVar[str] = "sfron"
    paper: ClassVar[str] = "2409.19732"
    fast_steps: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        # What the released code does for DDPM: one Adam, gradient mask, no live merge, alpha inside the clipped loss.
        "reference": {
            "forget_alpha": 10.0,
            "alpha_on": "loss",
            "forget_optim": "shared",
            "mask_mode": "gradient",
            "fisher": "batch",
            "loss_floor": 0.0,
            "timestep_normalise": False,
            "slow_rate": 1.0,
            "bound": "none",
        },
        # The algorithm as written, with a merge that merges.
        "paper": {
            "forget_alpha": 1.0,
            "alpha_on": "step",
            "forget_optim": "shared",
            "mask_mode": "update",
            "fisher": "sample",
            "loss_floor": 0.0,
            "timestep_normalise": False,
            "slow_rate": 0.5,
            "bound": "none",
        },
        "stable": {},
    }

    preset: str = field(
        default="stable", metadata={"help": "starting values: reference (released code), paper, stable"}
    )
    retain_steps: int = field(default=1, metadata={"help": "K, retain steps after each forget step"})
    forget_alpha: float = field(
        default=1.0,
        metadata={"help": "alpha, forget strength. On the loss it hardly acts under Adam with clipping: use the step"},
    )
    alpha_on: str = field(default="step", metadata={"help": "alpha multiplies the forget 'step' or the 'loss'"})
    forget_schedule: str = field(default="cosine", metadata={"help": "alpha_t: cosine to 0 over the run, or constant"})
    adaptive_exponent: float = field(default=0.5, metadata={"help": "lambda of the adaptive weights; 0 is the mean"})
    loss_floor: float = field(default=1e-4, metadata={"help": "lower bound under the (normalised) losses in w_i"})
    timestep_normalise: bool = field(
        default=True, metadata={"help": "divide losses by the original model's mean loss at the timestep before w_i"}
    )
    bound: str = field(
        default="other",
        metadata={"help": "none, or other: a sample whose loss reaches what another label gives is left alone"},
    )
    forget_max_norm: float = field(default=1.0, metadata={"help": "clip of the forget gradient's norm; 0 is none"})
    forget_optim: str = field(default="separate", metadata={"help": "separate Adam for the forget step, or shared"})
    forget_learning_rate: float | None = field(default=None, metadata={"help": "default: learning_rate"})
    use_mask: bool = field(default=True, metadata={"help": "restrict the forget step to salient weights"})
    mask_threshold: float = field(default=1.0, metadata={"help": "gamma: salient where F_forget >= gamma F_retain"})
    mask_mode: str = field(default="update", metadata={"help": "update (weights stay bit-identical) or gradient"})
    fisher: str = field(default="sample", metadata={"help": "sample or batch: whose gradients are squared"})
    fisher_samples: int = field(default=512, metadata={"help": "samples of each set for the Fisher; 0 is all"})
    fisher_batch_size: int = field(default=32, metadata={"help": "samples a chunk in the Fisher pass"})
    slow_rate: float = field(default=1.0, metadata={"help": "beta, the slow rate; 1 is no slow weights"})
    slow_form: str = field(default="lookahead", metadata={"help": "lookahead or ema"})

    def __post_init__(self):
        if self.preset not in self.presets:
            raise ValueError(f"preset {self.preset!r} is not one of {', '.join(self.presets)}")
        choices = {
            "alpha_on": ("step", "loss"),
            "forget_schedule": ("cosine", "constant"),
            "bound": ("none", "other"),
            "forget_optim": ("separate", "shared"),
            "mask_mode": ("update", "gradient"),
            "fisher": ("sample", "batch"),
            "slow_form": ("lookahead", "ema"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.retain_steps < 1:
            raise ValueError(f"retain_steps must be at least 1, got {self.retain_steps}")

    @classmethod
    def from_preset(cls, preset: str = "stable", **overrides: Any) -> "SFRon":
        """An SFRon with the preset's values, then `overrides`."""
        if preset not in cls.presets:
            raise ValueError(f"preset {preset!r} is not one of {', '.join(cls.presets)}")
        return cls(preset=preset, **{**cls.presets[preset], **overrides})

    @property
    def retain_batches(self) -> int:
        return self.retain_steps

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
        return self.timestep_normalise or self.bound != "none"

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
        losses = loop.losses(batch["forget"])
        scale = active = None
        if self.needs_baseline:
            baseline = loop.baseline(batch["forget"])
            if self.timestep_normalise:
                scale = baseline.own
            if self.bound == "other":
                active = losses.detach() < baseline.other
                loop.record("forget_active", active.float().mean())
        ascent = -adaptive_mean(losses, self.adaptive_exponent, self.loss_floor, scale, active)
        on_loss = alpha if self.alpha_on == "loss" else 1.0
        loop.fast_step(
            on_loss * ascent,
            forget=True,
            max_norm=self.forget_max_norm or None,
            scale=alpha if self.alpha_on == "step" else 1.0,
        )
        loop.record("forget_loss", losses.detach().mean())
        for retain in batch["retain"][:-1]:
            loop.fast_step(loop.losses(retain).mean(), forget=False)

    def loss(self, loop: Loop, batch: dict[str, Any]) -> Tensor:
        losses = loop.losses(batch["retain"][-1])
        loop.record("retain_loss", losses.detach().mean())
        return losses.mean()
