"""The same number of trials for every method, seeded, on models and a split that the table never uses.

A trial is scored by its average gap, the mean over the search seeds of what the table reports. (The gap of means over
seeds is no score: errors of opposite sign cancel, and it chose options that collapsed on the next seed.)
"""

from typing import Any

from ..training.config import UnlearnConfig
from .cells import Cells
from .recipe import method_of
from .spaces import SPACES, suggest

WORST = 100.0  # percentage points, for a trial that diverged


def search(cells: Cells, row: str) -> dict[str, Any]:
    """The options with the smallest average gap to the retrained models on the validation split.

    optuna's TPE sampler with the recipe's first search seed; the method's defaults are its first trial. Trials are
    cells: after an interrupt the sampler meets the same values and goes on.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    recipe = cells.recipe

    def gap(trial: Any) -> float:
        options = suggest(trial, row)
        figures = [cells.figures(row, seed, "validation", options) for seed in recipe.search_seeds]
        gaps = [WORST if f["diverged"] else f["metrics"]["average_gap"]["value"] for f in figures]
        return sum(gaps) / len(gaps)

    sampler = optuna.samplers.TPESampler(seed=recipe.search_seeds[0], n_startup_trials=5)
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial(_defaults(row), skip_if_exists=True)
    study.optimize(gap, n_trials=recipe.trials)
    return {
        "options": study.best_params,
        "gap": study.best_value,
        "trials": [{"options": t.params, "gap": t.value} for t in study.trials],
    }


def _defaults(row: str) -> dict[str, Any]:
    """The method's own values where they lie in the space, so that no method is worse than untuned."""
    method, defaults = method_of(row, {}), {}
    for name, space in SPACES[row].items():
        value = UnlearnConfig.learning_rate if name.endswith("learning_rate") else getattr(method, name, None)
        inside = value in space if isinstance(space, list) else value is not None and space[0] <= value <= space[1]
        if inside:
            defaults[name] = value
    return defaults
