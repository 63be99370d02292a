"""Write results.json, results.csv, a Markdown table with 95 % intervals, and the trade-off plot."""

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..common.files import atomic, write_text
from ..common.names import public_name
from ..evaluation.metric import is_share, share_interval
from ..evaluation.tables import interval, markdown_table
from .chart import plot
from .ranking import best_of, excess, gap_of_means, ordered, verdict
from .recipe import Recipe
from .rows import AGAIN, REFERENCES

# metric -> (column title, factor, digits)
COLUMNS = {
    "average_gap": ("average gap", 1, 2),
    "retain_accuracy": ("RA %", 100, 1),
    "test_accuracy": ("TA %", 100, 1),
    "kl_to_retrained": ("KL", 1, 3),
    "iam_score": ("IAM", 1, 3),
    "rmia_auc": ("RMIA AUC", 1, 3),
    "forget_accuracy": ("FA %", 100, 1),
    "mia_entropy_logistic": ("MIA entropy %", 100, 1),
    "mia_confidence_svc": ("MIA confidence %", 100, 1),
    "js_to_retrained": ("JS", 1, 3),
    "relearn_steps": ("relearn steps", 1, 1),
    "time_ratio": ("time / retrain", 1, 3),
}


def value_of(result: dict[str, Any], name: str) -> float | None:
    """A column's value in one cell, or None for a diverged run, an unknown time or a missing shadow model."""
    if name == "time_ratio":
        return result["time_ratio"]
    return None if result["diverged"] or name not in result["metrics"] else result["metrics"][name]["value"]


def values_of(results: list[dict[str, Any]], name: str) -> list[float]:
    """A column's values in the cells that did not diverge."""
    return [value for result in results if (value := value_of(result, name)) is not None]


def table(results: dict[str, list[dict[str, Any]]], limit: float) -> str:
    """One row for each method: references, then by gap of means, and under a line of their own those over the limit.

    Args:
        results: the cells of each row, a seed each. A diverged run empties its row.
        limit: points that retained and test accuracy may lose, see `excess`.
    """
    titles = ["method", "gap of means", *(title for title, _, _ in COLUMNS.values())]
    rows, lined = [], False
    for row in ordered(results, limit):
        cells = results[row]
        if row not in REFERENCES and not lined and excess(cells, limit):
            lined = True
            rows.append([f"*over the limit of {limit:g} points:*", *([""] * (len(titles) - 1))])
        means = "" if any(result["diverged"] for result in cells) else f"{gap_of_means(cells):.2f}"
        rows.append([row, means, *(_entry(cells, name) for name in COLUMNS)])
    return markdown_table(titles, rows)


def _entry(cells: list[dict[str, Any]], name: str) -> str:
    """A column's mean with its 95 % interval.

    Where the runs do not differ, as a single one does not, the interval of a share is that of one run's samples
    (Wilson): nine of nine is no certainty.
    """
    _, factor, digits = COLUMNS[name]
    values = values_of(cells, name)
    if len(values) < len(cells):
        diverged = sum(bool(cell["diverged"]) for cell in cells)
        return f"{diverged} of {len(cells)} diverged" if diverged else "-"
    if is_share(name) and len(set(values)) == 1:
        samples = min(cell["metrics"][name]["samples"] for cell in cells)
        low, high = share_interval(values[0], samples)
        return f"{factor * values[0]:.{digits}f} [{factor * low:.{digits}f}, {factor * high:.{digits}f}]"
    return interval([factor * value for value in values], digits)


def costs(results: dict[str, list[dict[str, Any]]]) -> str:
    """The seconds that retraining and each method took."""
    known = {row: cells for row, cells in results.items() if all(cell["seconds"] is not None for cell in cells)}
    means = {row: sum(cell["seconds"] for cell in cells) / len(cells) for row, cells in known.items()}
    each = ", ".join(f"{row} {means[row]:.1f}" for row in means if row not in REFERENCES)
    retraining = f"retraining {means['retrained']:.1f}, " if "retrained" in means else ""
    return f"Seconds of training: {retraining}{each}."


def write(folder: Path, recipe: Recipe, stamp: str, results: dict, searched: dict, extra: str = "") -> str:
    """Write all files of a comparison and return the Markdown text."""
    again = f"{AGAIN!r} is what chance makes of both, and the shadow model of IAM. " if AGAIN in results else ""
    limit = recipe.accuracy_limit
    text = (
        f"# {recipe.name}\n\n{stamp}\n\n"
        f"Forget {recipe.forget} of {public_name(recipe.data)}, {_models(recipe)}, {len(recipe.seeds)} seeds, "
        f"{_budget(recipe)}, {recipe.trials} search trials for every method on the validation split with seeds "
        f"{recipe.search_seeds} (the smallest average gap within the limit wins). Means over seeds with 95 % "
        "intervals. The average gap is the mean distance to the retrained model's FA, RA, TA and MIA entropy, in "
        "percentage points, run by run; the gap of means is the same distance between means over seeds. "
        f"{again}{costs(results)}\n\n{verdict(results, limit)}\n\n{table(results, limit)}\n{extra}\n"
        "![trade-off](tradeoff.png)\n"
    )
    best = best_of(results, limit)
    everything = {"recipe": asdict(recipe), "stamp": stamp, "best": best, "search": searched, "results": results}
    write_text(folder / "results.json", json.dumps(everything, indent=1))
    with atomic(folder / "results.csv") as partial, open(partial, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "seed", *COLUMNS, "seconds", "diverged"])
        for row, cells in results.items():
            for cell in cells:
                values = [value_of(cell, name) for name in COLUMNS]
                writer.writerow([row, cell["seed"], *values, cell["seconds"], cell["diverged"] or ""])
    write_text(folder / "results.md", text)
    plot(results, folder / "tradeoff.png", recipe.name, limit)
    return text


def _models(recipe: Recipe) -> str:
    if recipe.original:
        return f"original {public_name(recipe.original)}, retrained {public_name(recipe.retrained or '')}"
    return f"model {public_name(recipe.model)}"


def _budget(recipe: Recipe) -> str:
    """The budget, and its share of what retraining takes where that is known."""
    said = f"budget {recipe.budget} batch gradients of {recipe.batch_size} samples"
    whole = recipe.retraining_gradients
    return said if whole is None else f"{said} (1/{whole / recipe.budget:.3g} of retraining's {whole:g})"
