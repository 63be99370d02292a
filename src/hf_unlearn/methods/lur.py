"""LUR: forget from where a retain step would lead, so that the two gradients learn to agree."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .base import Loop, Method


@dataclass
class LUR(Method):
    """min a_r L_r(θ) + a_u L_u(θ - η ∇L_r(θ)),   L_u = -mean l(forget)

    Patel and Qiu, ICCV 2025, arXiv 2503.06339; our reading, the paper's own text was not at hand. To first order
    the look-ahead adds -η <∇L_u, ∇L_r>: agreement is rewarded. `form="exact"` differentiates through ∇L_r,
    `"first_order"` takes it as a constant.
    """

    name: ClassVar[str] = "lur"
    paper: ClassVar[str] = "2503.06339"
    form: str = field(default="first_order", metadata={"help": "exact (second derivatives) or first_order"})
    look_ahead: float = field(default=0.01, metadata={"help": "η, the retain step that is looked ahead"})
    retain_weight: float = field(default=1.0, metadata={"help": "a_r"})
    forget_weight: float = field(default=0.1, metadata={"help": "a_u"})

    def __post_init__(self):
        if self.form not in ("exact", "first_order"):
            raise ValueError(f"form must be exact or first_order, got {self.form!r}")
        if self.look_ahead < 0:
            raise ValueError(f"look_ahead must not be negative, got {self.look_ahead}")

    @property
    def gradients(self) -> float:
        return 3  # the retain gradient is taken twice: to look ahead, and for the step

    def loss(self, loop: Loop, batch: dict[str, Any]) -> Tensor:
        exact = self.form == "exact"
        with sdpa_kernel(SDPBackend.MATH) if exact else nullcontext():  # fused attention has no second derivative
            retain = loop.losses(batch["retain"][0]).mean()
        gradient = torch.autograd.grad(retain, loop.parameters, create_graph=exact, retain_graph=True)
        shift = [self.look_ahead * (g if exact else g.detach()) for g in gradient]
        forget = loop.losses(batch["forget"], shift=shift).mean()
        loop.record("forget_loss", forget.detach())
        loop.record("retain_loss", retain.detach())
        return self.retain_weight * retain - self.forget_weight * forget
