"""Look ahead: a step on one loss inside, another loss at the weights to which it leads outside.

    θ' = θ - α ∇L_in(θ),   min L_out(θ')

The gradient of L_out(θ') is (I - α H_in) ∇L_out(θ'), with H_in the Hessian of L_in at θ. `exact` differentiates
through ∇L_in; to first order it is a constant, and H_in is left out. Whose step is inside, and the sign outside, is
the method's.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..common.losses import world_size
from .base import Step


def inner_gradient(step: Step, loss: Callable[[], Tensor], exact: bool = False) -> tuple[Tensor, list[Tensor]]:
    """Differentiate a loss by the trained weights, over the global batch.

    Args:
        loss: computes this process's scalar.
        exact: whether the gradient can be differentiated again.

    Returns:
        (the loss, whose backward hands out the gradient found here instead of taking another pass; the gradient).
    """
    with sdpa_kernel(SDPBackend.MATH) if exact else nullcontext():  # fused attention has no second derivative
        value = loss()
    found = torch.autograd.grad(value, step.parameters, create_graph=exact, materialize_grads=True)
    gradient = [_mean(g) if exact else _mean(g.detach()) for g in found]
    known = _Known.apply(value.detach(), *(g.detach() for g in gradient), *step.parameters)
    return known, gradient


def adam_shift(gradient: list[Tensor], rate: float) -> list[Tensor]:
    """The first step of Adam along `gradient`, as what is taken off the weights: rate g / (|g| + eps).

    Its eps is a hundredth of the gradient's root mean square over all weights: smaller gradients are mostly rounding.
    """
    squares = torch.stack([torch.linalg.vector_norm(g, dtype=torch.float32) for g in gradient]).square().sum()
    eps = 0.01 * (squares / sum(g.numel() for g in gradient)).sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    return [(rate * g / (g.abs() + eps)).to(g.dtype) for g in gradient]


class _Known(torch.autograd.Function):
    """A loss whose gradient has been computed already."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *gradients_and_weights: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients_and_weights[: len(gradients_and_weights) // 2])
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Any:  # type: ignore[override]  # one scalar comes back
        gradients = ctx.saved_tensors
        return None, *(None for _ in gradients), *(outer * g for g in gradients)


def _mean(gradient: Tensor) -> Tensor:
    """The mean over processes, which can be differentiated where `gradient` can."""
    world = world_size()
    if world == 1:
        return gradient
    if gradient.requires_grad:
        from torch.distributed.nn.functional import all_reduce

        return all_reduce(gradient) / world
    summed = gradient.clone()
    dist.all_reduce(summed)
    return summed / world
