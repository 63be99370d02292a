"""Compare methods with retraining, over seeds, with one budget and one search: `hf-unlearn compare RECIPE`."""

from pathlib import Path

from ..common.bars import phase
from ..evaluation.tables import stamp
from .budget import over_budget
from .cells import Cells
from .pool import collect, pool_of
from .recipe import Recipe, load_recipe
from .repeat import repeats
from .rows import OTHER_START, method_of
from .search import search
from .tables import write
from .ulira import attack_table

VERSIONS = ("torch", "transformers", "scikit-learn", "optuna")

__all__ = ["Cells", "Recipe", "compare", "load_recipe", "method_of"]


def compare(
    recipe: Recipe,
    folder: str | Path,
    jobs: int | None = None,
    progress: bool = True,
    models_dir: str | Path | None = None,
    command: str | None = None,
) -> str:
    """Run a recipe and write results.json, results.csv, results.md and tradeoff.png to `folder`.

    Finished cells are read from `folder`. An interrupted comparison goes on where it was and ends in the same table.

    Args:
        jobs: Processes of one thread each that train models and compute cells. The default is one for each core; 0
            computes all in this process.
        progress: Show progress bars.
        models_dir: The folder of the trained models. The default is `folder`/models.
        command: The command line that reads this recipe, to which the table adds how to repeat a row.

    Returns:
        The Markdown text.

    Raises:
        ValueError: the data, the models or the options of a row do not fit; nothing has been trained then.
    """
    kept = Cells(recipe, folder, models_dir)
    phase("checking data and models")
    kept.check()
    references = kept.references
    with pool_of(jobs) as pool:
        every = [*recipe.search_seeds, *recipe.seeds]
        models = []
        if not recipe.original:
            models = [(kind, seed, seed) for kind in ("original", "retrained") for seed in every]
            models += [("retrained", seed + OTHER_START, seed) for seed in recipe.seeds]
            models = list(dict.fromkeys([*models, *kept.reference_models]))
        collect({pool.submit(_train, kept, *m): m for m in models}, "models", progress)
        searched = collect({pool.submit(search, kept, row): row for row in recipe.methods}, "search", progress)
        searched = {row: searched[row] for row in recipe.methods}
        options = {row: found["options"] for row, found in searched.items()} | {row: {} for row in references}
        wanted = {
            pool.submit(kept.result, row, seed, "test", options[row]): (row, seed)
            for row in (*references, *recipe.methods)
            for seed in recipe.seeds
        }
        cells = collect(wanted, "cells", progress)
        extra = attack_table(pool, kept, options, progress) if recipe.shadows else ""
    phase("writing the tables")
    results = {row: [cells[row, seed] for seed in recipe.seeds] for row in (*references, *recipe.methods)}
    repeat = repeats(recipe, searched, kept.sizes, command or f"hf-unlearn compare {recipe.name}", Path(folder))
    spent = over_budget(recipe, options, kept.sizes)
    return write(Path(folder), recipe, stamp(*VERSIONS), results, searched, f"{spent}{extra}\n{repeat}")


def _train(cells: Cells, kind: str, seed: int, forget_seed: int) -> None:
    cells.trained(kind, seed, forget_seed)  # the model stays on disk
