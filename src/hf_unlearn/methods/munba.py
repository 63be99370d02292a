"""MUNBa: retaining and forgetting bargain for each step, so that neither gains at the other's cost."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..common.losses import global_sum, world_size
from ..data.numerics import total_norm
from .base import Batch, Losses, Method, Step

TINY = 1e-12  # a gradient of length 0 has no direction, and gives none
OPPOSED = 1e-6  # of 1 + cos φ: opposed gradients leave nothing to agree on, and the step goes to 0


@dataclass(frozen=True)
class MUNBa(Method):
    """The gradient of a step is the Nash bargaining solution of two players, g_r = ∇ mean l(retain) and
    g_f = ∇ mean l(forget, y'):

        g = (g_r / ‖g_r‖ + g_f / ‖g_f‖) / √(1 + cos φ),   φ the angle between g_r and g_f

    Wu and Harandi, ICCV 2025, arXiv 2411.15537. Both losses fall at the same rate relative to the lengths of their
    gradients, and ‖g‖ = √2. y' is a random other label, drawn once for each sample; a diffusion model takes another
    class, whose prediction is matched. Made from the formula alone. Under AdamW the direction of g matters, its length
    hardly does.
    """

    name: ClassVar[str] = "munba"
    paper: ClassVar[str] = "2411.15537"
    shards: ClassVar[bool] = False

    def loss(self, step: Step, batch: Batch) -> Losses:
        retain = step.losses(batch.retain[0]).mean()
        forget = step.losses(batch.forget, target=step.anchor(batch.forget)).mean()
        players = [_gradient(loss, step.parameters) for loss in (retain, forget)]
        lengths = [total_norm(gradient).clamp(min=TINY) for gradient in players]
        product = torch.stack([(r * f).sum(dtype=torch.float32) for r, f in zip(*players)]).sum()
        cosine = product / (lengths[0] * lengths[1])
        shares = [(1 + cosine).clamp(min=OPPOSED).rsqrt() / length for length in lengths]
        # Linear in the weights: its gradient is g, without a second pass backward through the network.
        pairs = zip(step.parameters, *players)
        parts = [(p * (shares[0] * r + shares[1] * f)).sum(dtype=torch.float32) for p, r, f in pairs]
        linear = torch.stack(parts).sum()
        value = shares[0] * retain + shares[1] * forget
        total = linear + (value - linear).detach()
        return Losses(forget=forget, retain=retain, extra={"gradient_cosine": cosine}, total=total)


def _gradient(loss: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """The gradient over the global batch: each process bargains with the same one, not over its own part."""
    return [global_sum(gradient) / world_size() for gradient in torch.autograd.grad(loss, parameters)]
