"""The direction in which Adam would move the weights, and a step of a given length along it."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..common.sharding import local, sum_of_shards


def directions(optimizer: Optimizer) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (p, m̂ / (√v̂ + eps)) for every weight tensor that has moments: this process's shards.

    One tensor at a time, so that no second copy of the weights exists.
    """
    for group in optimizer.param_groups:
        beta1, beta2 = group["betas"]
        for p in group["params"]:
            state = optimizer.state.get(p)
            if p.grad is None or not state:
                continue
            step = state["step"]
            first, second = local(state["exp_avg"]), local(state["exp_avg_sq"])
            step = step.to(first.device, torch.float64)  # in float32, 1 - 0.999 has lost four of its digits
            spread = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
            yield p, (first / (1 - beta1**step)).div_(spread)


def _gradient(p: Tensor) -> Tensor:
    assert p.grad is not None  # `directions` leaves out the others
    return local(p.grad).float()


@torch.no_grad()
def step_along(optimizer: Optimizer, length: Callable[[float, float, float], float]) -> None:
    """Move the weights by -κ d along Adam's direction d, whose moments hold the present gradient already.

    Args:
        length: κ of (<g, d>, norm of d, norm of the weights), with g the present gradient. Over all shards.
    """
    rows = [
        torch.stack([(_gradient(p) * d).sum(), d.float().square().sum(), local(p).float().square().sum()])
        for p, d in directions(optimizer)
    ]
    if not rows:
        return
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    slope, d, p = sum_of_shards(torch.stack(rows).double().sum(0), weights).tolist()
    kappa = length(slope, math.sqrt(d), math.sqrt(p))
    for parameter, direction in directions(optimizer):
        local(parameter).add_(direction.to(parameter.dtype), alpha=-kappa)
