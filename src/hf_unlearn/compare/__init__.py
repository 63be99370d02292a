"""Methods x seeds under one budget, searched alike, against retraining: `hf-unlearn compare RECIPE`."""

import os
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .cells import REFERENCES, Cells
from .recipe import Recipe, load_recipe, method_of

VERSIONS = ("torch", "transformers", "scikit-learn", "optuna")

__all__ = ["Cells", "Recipe", "compare", "load_recipe", "method_of"]


def compare(
    recipe: Recipe,
    folder: str | Path,
    jobs: int | None = None,
    progress: bool = True,
    models_dir: str | Path | None = None,
) -> str:
    """Run a recipe and write results.json, results.csv, results.md and tradeoff.png to `folder`.

    Finished cells are read from `folder`; an interrupted comparison goes on and ends in the same table. Models are
    trained, into `models_dir` (`folder`/models), and cells computed in `jobs` processes of one thread each; 0 is in
    this process.

    Returns:
        The Markdown text.
    """
    from ..evaluation.tables import stamp
    from .tables import write
    from .ulira import attack_table

    kept = Cells(recipe, folder, models_dir)
    jobs = os.cpu_count() or 1 if jobs is None else jobs
    with ProcessPoolExecutor(jobs, get_context("spawn"), _one_thread) if jobs else InProcess() as pool:
        every = [*recipe.search_seeds, *recipe.seeds]
        models = [(kind, seed) for kind in ("original", "retrained") for seed in every]
        _all({pool.submit(_train, kept, *m): m for m in models}, "models", progress)
        searched = _all({pool.submit(_search, kept, row): row for row in recipe.methods}, "search", progress)
        options = {row: found["options"] for row, found in searched.items()} | {row: {} for row in REFERENCES}
        wanted = {
            pool.submit(kept.figures, row, seed, "test", options[row]): (row, seed)
            for row in (*REFERENCES, *recipe.methods)
            for seed in recipe.seeds
        }
        cells = _all(wanted, "cells", progress)
        extra = attack_table(pool, kept, options, progress) if recipe.shadows else ""
    results = {row: [cells[row, seed] for seed in recipe.seeds] for row in (*REFERENCES, *recipe.methods)}
    return write(Path(folder), asdict(recipe), stamp(*VERSIONS), results, searched, extra)


class InProcess(Executor):
    """Runs each call when it is submitted."""

    def submit(self, function, /, *args, **kwargs) -> Future:
        future: Future = Future()
        future.set_result(function(*args, **kwargs))
        return future


def _all(running: dict[Future, Any], what: str, progress: bool) -> dict[Any, Any]:
    done = {}
    for future in tqdm(as_completed(running), total=len(running), desc=what, disable=not progress):
        done[running[future]] = future.result()
    return done


def _one_thread() -> None:
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _train(cells: Cells, kind: str, seed: int) -> None:
    cells.trained(kind, seed)  # the model stays on disk


def _search(cells: Cells, row: str) -> dict[str, Any]:
    from .search import search

    return search(cells, row)
