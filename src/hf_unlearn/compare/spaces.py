"""The search space of each row. The first trial is no point of it: it takes the row's own defaults (see `search`)."""

from typing import Any

from ..methods import SSD
from ..methods.ssd import threshold
from .rows import fixed_of, method_of, parts_of

# (low, high) is drawn log-uniformly; a list is a choice. The default rate of `hf-unlearn classify` lies in both.
RATE = {"learning_rate": (1e-4, 2e-2)}  # for every method that trains on retain data
ASCENT_RATE = {"learning_rate": (1e-6, 1e-3)}
SFRON: dict[str, Any] = {
    **RATE,
    "forget_learning_rate": (3e-5, 3e-3),
    "forget_loss": ["ascent", "match"],
    "bound_margin": (3e-3, 2.0),
}
SPACES: dict[str, dict[str, Any]] = {
    "finetune": RATE,
    "gradient_ascent": ASCENT_RATE,
    "neg_grad_plus": {**RATE, "forget_weight": (1e-3, 1.0)},
    "random_label": {**RATE, "forget_weight": (1e-2, 2.0)},
    "salun": {**RATE, "forget_weight": (1e-2, 2.0), "mask_density": [0.1, 0.3, 0.5, 0.8]},
    "scrub": {**RATE, "distill_weight": (1e-3, 1.0), "max_share": [0.1, 0.25, 0.5]},
    "bad_teacher": {**RATE, "temperature": [1.0, 2.0, 4.0]},
    "l1_sparse": {**RATE, "penalty": (1e-6, 1e-3)},
    "boundary_shrink": ASCENT_RATE,
    "ssd": {"selection": (1.0, 100.0), "dampening": (0.1, 2.0)},
    "lur": {**RATE, "look_ahead": (1e-4, 1e-1), "forget_weight": (1e-3, 1.0), "reinit_share": [0.0, 0.03]},
    "munba": RATE,
    "sfron": SFRON,
    "clu": SFRON,  # which it is, where there is nothing to learn
    "sfron:paper": {**RATE, "forget_alpha": (1e-2, 3.0), "slow_rate": [0.3, 0.5, 0.8]},
    "sfron:reference": {**RATE, "forget_alpha": (0.1, 30.0), "mask_threshold": [0.3, 1.0, 3.0]},
}


def space_of(row: str, share: float) -> dict[str, Any]:
    """The space that a row is searched in: without what it fixes; of a method of another package, its learning rate.

    Args:
        share: of the forget set in all data.
    """
    name, preset, _ = parts_of(row)
    space = dict(SPACES.get(f"{name}:{preset}" if preset else name, SPACES.get(name, RATE)))
    method = method_of(row, {})
    if method.finds_strength and "learning_rate" not in fixed_of(row):
        return {}  # it has nothing to search: what it needs, it finds in each run
    if getattr(method, "proportional_passes", False):  # Adam hardly feels the weight of a step's whole loss
        space.pop("forget_weight", None)
    if isinstance(method, SSD) and method.fisher == "sample":  # nothing can be selected from 1 / share on
        low, high = space["selection"]
        space["selection"] = (low, threshold(high, share))
    return {option: values for option, values in space.items() if option not in fixed_of(row)}


def suggest(trial: Any, space: dict[str, Any]) -> dict[str, Any]:
    """Have an optuna trial suggest one point of a space."""
    chosen = {}
    for name, values in space.items():
        if isinstance(values, list):
            chosen[name] = trial.suggest_categorical(name, values)
        else:
            chosen[name] = trial.suggest_float(name, *values, log=True)
    return chosen


def distributions(space: dict[str, Any]) -> dict[str, Any]:
    """A space in optuna's terms."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    return {
        name: CategoricalDistribution(values)
        if isinstance(values, list)
        else FloatDistribution(values[0], values[1], log=True)
        for name, values in space.items()
    }


def inside(values: dict[str, Any], space: dict[str, Any]) -> bool:
    """Whether `values` are a point of a space."""

    def fits(value: Any, given: Any) -> bool:
        if isinstance(given, list):
            return value in given
        return isinstance(value, int | float) and given[0] <= value <= given[1]

    return values.keys() == space.keys() and all(fits(values[name], given) for name, given in space.items())
