"""The mask that balances what a run changes, to forget or to learn, with what it must keep."""

import json
from collections.abc import Mapping
from typing import Any, Literal

import torch

from ..families import Objective
from .fisher import fisher
from .masks import Masks, ratio_masks


def balanced_masks(
    objective: Objective,
    sets: Mapping[str, Any],
    gamma: float,
    estimator: Literal["sample", "batch"],
    *options: int,
    balance: bool = True,
) -> Masks:
    """Compute S = [F > 0 and F >= gamma F_retain] with F = F_forget + s F_learn.

    Without a learn set this is SFR-on's mask. What is not learnt yet has large gradients everywhere, so its Fisher is
    brought to the size of the retained one: s = Σ F_retain / Σ F_learn, over all weights.

    Args:
        sets: "retain", and "forget" or "learn" or both. A set that is None is left out.
        estimator, options: as `fisher` takes them.
        balance: False takes s = 1.
    """
    found = {
        name: fisher(objective, part, name != "retain", estimator, *options, name=name)
        for name, part in sets.items()
        if part is not None
    }
    retain, (moved, about) = found["retain"], found.get("forget") or found["learn"]
    rule: dict[str, str] = {}
    if "learn" in found:
        learn, facts = found["learn"]
        sums = [torch.stack([f.double().sum() for f in part.values()]).sum() for part in (retain[0], learn)]
        share = float(sums[0] / sums[1].clamp(min=1e-300)) if balance else 1.0
        learnt = {name: share * f for name, f in learn.items()}
        moved = {name: moved[name] + learnt[name] for name in moved} if "forget" in found else learnt
        rule = {"learn": json.dumps(facts), "balance": str(share)}
    return ratio_masks((moved, about), retain, gamma, **rule)
