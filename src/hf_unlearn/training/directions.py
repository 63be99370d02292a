"""The direction in which Adam would move the weights, and a step of a given length along it."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..common.sharding import local, sum_of_shards

PIECE = 2**17  # numbers that are taken together on a CPU, whose cache then holds what is computed of them
TINY = 1e-30  # nothing beside Adam's eps squared; the root of an exact 0 takes ten times as long on some CPUs


def directions(optimizer: Optimizer) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (weights, their gradient, m̂ / (√v̂ + eps)) for all that has moments: this process's shards.

    One piece at a time, so that no second copy of the weights exists. Weights and gradients share their storage.
    """
    groups = [(group, p) for group in optimizer.param_groups for p in group["params"]]
    moved = [(group, p, optimizer.state[p]) for group, p in groups if p.grad is not None and optimizer.state.get(p)]
    if not moved:
        return
    steps = torch.stack([state["step"] for *_, state in moved]).tolist()
    for (group, p, state), step in zip(moved, steps):
        beta1, beta2 = group["betas"]
        first = 1 - beta1**step
        # m / first / (√(v / second) + eps), with one pass less
        scale, eps = first / math.sqrt(1 - beta2**step), first * group["eps"]
        for weights, gradient, m, v in _pieces(p, p.grad, state["exp_avg"], state["exp_avg_sq"]):
            spread = v.add(TINY).sqrt_().mul_(scale).add_(eps)
            yield weights, gradient, torch.div(m, spread, out=spread)


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one shape, cut alike."""
    own = [local(tensor.detach()) for tensor in tensors]
    if own[0].device.type == "cpu" and all(tensor.is_contiguous() for tensor in own):
        yield from zip(*(tensor.view(-1).split(PIECE) for tensor in own))
    else:
        yield tuple(own)


def _squares(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor, dtype=torch.float32).square()


@torch.no_grad()
def step_along(optimizer: Optimizer, length: Callable[[float, float, float, int], float]) -> None:
    """Move the weights by -κ d along Adam's direction d, whose moments hold the present gradient already.

    The gradients are overwritten: d waits in their place until κ is known.

    Args:
        length: κ of (<g, d>, norm of d, norm of the weights, their number), with g the present gradient. Over all
            shards.
    """
    rows, moved, count = [], [], 0
    for weights, gradient, d in directions(optimizer):
        slope = torch.dot(gradient.flatten().float(), d.flatten().float())
        rows.append(torch.stack([slope, _squares(d), _squares(weights)]))
        count += d.numel()
        gradient.copy_(d)
        moved.append((weights, gradient))
    if not rows:
        return
    every = [p for group in optimizer.param_groups for p in group["params"]]
    own = torch.stack(rows).double().sum(0)
    slope, across, whole, number = sum_of_shards(torch.cat([own, own.new_tensor([count])]), every).tolist()
    kappa = length(slope, math.sqrt(across), math.sqrt(whole), int(number))
    for weights, direction in moved:
        weights.add_(direction, alpha=-kappa)
