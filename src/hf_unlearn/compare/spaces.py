"""The search space of each row. The first trial takes the method's defaults where they lie in the space."""

from typing import Any

# (low, high) is drawn log-uniformly; a list is a choice.
RATE = {"learning_rate": (5e-4, 2e-2)}  # for every method that trains on retain data
ASCENT_RATE = {"learning_rate": (1e-6, 1e-3)}
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
    "ssd": {"selection": (1.0, 50.0), "dampening": (0.1, 2.0)},
    "lur": {**RATE, "look_ahead": (1e-4, 1e-1), "forget_weight": (1e-3, 1.0), "reinit_share": [0.0, 0.03]},
    "sfron": {
        **RATE,
        "forget_learning_rate": (3e-5, 3e-3),
        "forget_loss": ["ascent", "match"],
        "bound_margin": (3e-3, 2.0),
    },
    "sfron:paper": {**RATE, "forget_alpha": (1e-2, 3.0), "slow_rate": [0.3, 0.5, 0.8]},
    "sfron:reference": {**RATE, "forget_alpha": (0.1, 30.0), "mask_threshold": [0.3, 1.0, 3.0]},
}


def space_of(row: str) -> dict[str, Any]:
    """The space that a row is searched in; of a method of another package, its learning rate."""
    return SPACES.get(row, RATE)


def suggest(trial: Any, row: str) -> dict[str, Any]:
    """Have an optuna trial suggest one point of the row's space."""
    chosen = {}
    for name, space in space_of(row).items():
        if isinstance(space, list):
            chosen[name] = trial.suggest_categorical(name, space)
        else:
            chosen[name] = trial.suggest_float(name, *space, log=True)
    return chosen
