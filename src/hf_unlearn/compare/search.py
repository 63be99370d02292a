"""Search the options of each method with the same number of trials, on models and data that the table never uses.

The score of a trial is its average gap, the mean over the search seeds of what the table reports. The gap of means
over seeds would not do: errors of opposite sign cancel, and it chose options that collapsed on the next seed.
"""

from typing import Any

from ..training.config import UnlearnConfig
from .cells import Cells
from .rows import method_of
from .spaces import space_of, suggest

WORST = 100.0  # percentage points, for a trial that diverged


def search(cells: Cells, row: str) -> dict[str, Any]:
    """Find the options with the smallest average gap to the retrained models on the validation split.

    The sampler is optuna's TPE with the recipe's first search seed, and the first trial takes the method's defaults.
    Trials are cells: after an interruption the sampler reads the same values and goes on.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    recipe = cells.recipe

    def gap(trial: Any) -> float:
        options = suggest(trial, row)
        results = [cells.result(row, seed, "validation", options) for seed in recipe.search_seeds]
        gaps = [WORST if r["diverged"] else r["metrics"]["average_gap"]["value"] for r in results]
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
    """The method's own values where they lie in the space, so that the search never ends worse than untuned."""
    method = method_of(row, {})
    defaults: dict[str, Any] = {}
    for name, space in space_of(row).items():
        value = UnlearnConfig.learning_rate if name.endswith("learning_rate") else getattr(method, name, None)
        inside = value in space if isinstance(space, list) else value is not None and space[0] <= value <= space[1]
        if inside:
            defaults[name] = value
    return defaults
