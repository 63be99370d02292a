"""Search the options of each method with the same number of trials, on models and data that the table never uses.

The score of a trial is its average gap, the mean over the search seeds of what the table reports. The gap of means
over seeds would not do: errors of opposite sign cancel, and it chose options that collapsed on the next seed. A trial
over the limit on retained and test accuracy loses to any that keeps it; among those over it less is better.
"""

from typing import Any

from .cells import Cells
from .ranking import excess
from .rows import RATE
from .spaces import distributions, inside, space_of, suggest

WORST = 100.0  # percentage points: the average gap of a run that diverged, and no gap is larger


def search(cells: Cells, row: str) -> dict[str, Any]:
    """Find the options with the smallest average gap within the limit, on the validation split.

    The first trial takes the row as it is: the method's defaults, the options that the row fixes, and the learning
    rate that `hf-unlearn classify` has by default. The rest are drawn by optuna's TPE with the recipe's first search
    seed. Trials are cells: after an interruption the sampler reads the same values and goes on.

    Returns:
        options: those of the best trial; for the first one the learning rate alone, if the row has one to choose.
        values: the same, or for the first trial the row's own values of all that is searched.
        default: whether the first trial is the best one.
        gap, excess: of the best trial; the points beyond the limit, 0 within it.
        trials: all of them.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    recipe = cells.recipe

    def tried(options: dict[str, Any]) -> dict[str, Any]:
        results = [cells.result(row, seed, "validation", options) for seed in recipe.search_seeds]
        gaps = [WORST if r["diverged"] else r["metrics"]["average_gap"]["value"] for r in results]
        beyond = excess(results, recipe.accuracy_limit)
        return {"options": options, "gap": sum(gaps) / len(gaps), "excess": beyond}

    space = space_of(row, cells.share)
    defaults = _defaults(cells, row, space)
    own = {RATE: defaults[RATE]} if RATE in space else {}
    trials = [tried(own)]
    sampler = optuna.samplers.TPESampler(seed=recipe.search_seeds[0], n_startup_trials=5)
    study = optuna.create_study(sampler=sampler)
    if inside(defaults, space):
        value = score(trials[0])
        study.add_trial(optuna.trial.create_trial(params=defaults, distributions=distributions(space), value=value))
    for _ in range(recipe.trials - 1 if space else 0):
        trial = study.ask()
        trials.append(tried(suggest(trial, space)))
        study.tell(trial, score(trials[-1]))
    best = min(trials, key=score)  # of equal ones the first
    default = best is trials[0]
    values = defaults if default else best["options"]
    return {**best, "values": values, "default": default, "trials": trials}


def score(trial: dict[str, Any]) -> float:
    """What the sampler minimises: the average gap, or beyond the limit more than any gap, by how far."""
    return WORST + trial["excess"] if trial["excess"] else trial["gap"]


def _defaults(cells: Cells, row: str, space: dict[str, Any]) -> dict[str, Any]:
    """The values that a row has by itself for what is searched."""
    method, rate = cells.default_method(row), cells.default_rate(row)
    values = {name: rate if name == RATE else getattr(method, name, None) for name in space}
    if "forget_learning_rate" in values and values["forget_learning_rate"] is None:
        values["forget_learning_rate"] = rate
    return values
