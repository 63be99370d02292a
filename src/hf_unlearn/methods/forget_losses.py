"""The forget losses of SFR-on, each at the weights or where a step of relearning leads."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..common.losses import adaptive_mean, adaptive_weights, masked_mean, world_size
from .parts import Above, Samples
from .seen import Step

Forget = tuple[Tensor, Above | None]  # the forget loss, and how far it lies above its end
Shift = list[Tensor] | None  # what is taken off the weights first


def matched(method: Any, step: Step, forget: Samples) -> Callable[[Shift], Forget]:
    """The distance to the anchor; where the strength is found, in units of the original's at the timestep.

    With an adversary it is the mean of two: that of the batch, and that of every second sample of it under an
    embedding that still draws the concept. The former alone says how far there is to go: the latter has no end.
    """
    anchor = step.anchor(forget)
    hardest = step.hardest(forget) if method.adversary else None

    def at(shift: Shift) -> Forget:
        losses = step.losses(forget, target=anchor, shift=shift)
        gap = step.baseline(forget).gap if method.finds_strength else None
        if method.finds_strength and gap is None:  # a classifier, whose anchor is a label
            whole = step.baseline(forget).other.mean()
            return losses.mean(), (losses.detach().mean(), whole, whole)
        unit = torch.ones_like(losses) if gap is None else gap.clamp(min=1e-12)
        plain = loss = (losses / unit).mean()
        if hardest is not None:
            rows, counts, under = hardest
            part = {name: value[rows] for name, value in forget.items()}
            there = step.losses(part, target=anchor[rows], shift=shift, under=under) / unit[rows]
            loss = (plain + masked_mean(there, counts)) / 2
        level = plain.detach()
        return loss, None if gap is None else (level, torch.ones_like(level), gap.mean())

    return at


def unseen(method: Any, step: Step, forget: Samples) -> Callable[[Shift], Forget]:
    """The distance to what the original would say of samples that it never saw."""
    target, original = step.unseen(forget)

    def at(shift: Shift) -> Forget:
        loss = step.losses(forget, target=target, shift=shift, as_unseen=True).mean()
        return loss, (loss.detach(), original.mean(), original.mean())

    return at


def ascent(method: Any, step: Step, forget: Samples) -> Callable[[Shift], Forget]:
    """-Σ_i w_i l_i; samples at the bound are left alone."""

    def at(shift: Shift) -> Forget:
        losses, options = step.losses(forget, shift=shift), dict[str, Any](floor=method.loss_floor)
        baseline = step.baseline(forget) if method.needs_baseline else None
        if baseline is not None and method.timestep_normalise:
            options["scale"] = baseline.own
        if baseline is None or method.bound == "none":
            return -adaptive_mean(losses, method.adaptive_exponent, **options), None
        assert method.bound_margin is not None
        end = method.bound_margin * getattr(baseline, method.bound)
        options["active"] = losses.detach() < end
        weights = adaptive_weights(losses, method.adaptive_exponent, **options) * world_size()
        left, whole = (weights * (end - level).clamp(min=0) for level in (losses.detach(), baseline.own))
        return -(weights * losses).sum(), (left.sum(), whole.sum(), (end - baseline.own).clamp(min=0).mean())

    return at
