"""The direction in which Adam would move the weights, and a step of a given length along it."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..common.sharding import local, sum_of_shards
from .compact import MOMENTS, CompactAdamW, moment, moved

PIECE = 2**17  # numbers that are taken together on a CPU, whose cache then holds what is computed of them
TINY = 1e-30  # nothing beside Adam's eps squared; the root of an exact 0 takes ten times as long on some CPUs


def directions(optimizer: Optimizer) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (weights, their gradient, m̂ / (√v̂ + eps)) for all that has moments: this process's shards.

    One piece at a time, so that no second copy of the weights exists. Weights and gradients share their storage.
    """
    groups = [(group, p) for group in optimizer.param_groups for p in group["params"]]
    ready = [(group, p) for group, p in groups if p.grad is not None and optimizer.state.get(p)]
    if not ready:
        return
    steps = torch.stack([optimizer.state[p]["step"] for _, p in ready]).tolist()
    for (group, p), step in zip(ready, steps):
        beta1, beta2 = group["betas"]
        first = 1 - beta1**step
        # m / first / (√(v / second) + eps), with one pass less
        scale, eps = first / math.sqrt(1 - beta2**step), first * group["eps"]
        for weights, gradient, m, v in _pieces(p, p.grad, *(moment(optimizer, p, name) for name in MOMENTS)):
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
    rows, waiting = [], []
    for weights, gradient, d in directions(optimizer):
        slope = torch.dot(gradient.flatten().float(), d.flatten().float())
        rows.append(torch.stack([slope, _squares(d), _squares(weights), slope.new_full((), d.numel())]))
        gradient.copy_(d)
        waiting.append((weights, gradient))
    if not rows:
        return
    every = [p for group in optimizer.param_groups for p in group["params"]]
    slope, across, whole, number = sum_of_shards(torch.stack(rows).double().sum(0), every).tolist()
    kappa = length(slope, math.sqrt(across), math.sqrt(whole), int(number))
    random = None
    if isinstance(optimizer, CompactAdamW):
        random = optimizer.generator(waiting[0][0].device, int(next(iter(optimizer.state.values()))["step"].item()))
    for weights, direction in waiting:
        moved(weights, direction, -kappa, random)


@torch.no_grad()
def conflict(forget: Optimizer | None, retain: Optimizer) -> dict[str, float]:
    """What further forgetting costs, from the moments of two Adams over the same weights (HAMU, arXiv 2606.02119).

    With m_f and m_r the running means of the two gradients and d the direction of a forget step:

        forget_conflict = cos(-m_f, m_r)         above 0 a step that forgets raises the retain loss
        forget_conflict_limit = √(1 - cos²(m_f, d))

    HAMU's κ = g_r · g_f and its bound κ_2 = √(‖g_r‖²‖g_f‖² - Q²‖g_r‖²/R²), both over ‖g_r‖‖g_f‖, where Q is what a
    step of length R takes off the forget loss: from the limit on forgetting more must cost retention, however the step
    is turned. The means stand for the gradients, which are gone when a row is logged.

    Returns:
        The two numbers; nothing before both have taken a step.
    """
    if forget is None:
        return {}
    rows = []  # m_f m_r, m_f², m_r², m_f d, d²
    every = [p for group in forget.param_groups for p in group["params"]]
    eps = {id(p): group["eps"] for group in forget.param_groups for p in group["params"]}
    for p in every:
        ours, theirs = forget.state.get(p), retain.state.get(p)
        if not ours or not theirs or "exp_avg" not in ours or "exp_avg" not in theirs:
            continue
        both = (*(moment(forget, p, name) for name in MOMENTS), moment(retain, p, "exp_avg"))
        for m, v, other in _pieces(*both):
            m, other = m.flatten().float(), other.flatten().float()
            d = m / (v.flatten().float().sqrt() + eps[id(p)])  # bias corrections change its length alone, all but eps
            products = ((m, other), (m, m), (other, other), (m, d), (d, d))
            rows.append(torch.stack([torch.dot(a, b) for a, b in products]))
    if not rows:
        return {}
    across, f, r, along, size = sum_of_shards(torch.stack(rows).double().sum(0), every).tolist()
    if not (f > 0 and r > 0 and size > 0):
        return {}
    aligned = min(along / math.sqrt(f * size), 1.0)
    return {
        "forget_conflict": -across / math.sqrt(f * r),
        "forget_conflict_limit": math.sqrt(1 - aligned**2),
    }
