"""Write results.json, results.csv, a Markdown table with 95 % intervals, and the trade-off plot."""

import csv
import json
from pathlib import Path
from typing import Any

from ..common.files import atomic, write_text
from ..common.names import public_name
from ..evaluation.classification import ATTACKS
from ..evaluation.tables import interval, markdown_table
from .rows import AGAIN, REFERENCES

MIA = f"mia_{ATTACKS[0][0]}_{ATTACKS[0][1]}"
GAP_NAMES = ("forget_accuracy", "retain_accuracy", "test_accuracy", MIA)
# metric -> (column title, factor, digits)
COLUMNS = {
    "forget_accuracy": ("FA %", 100, 1),
    "retain_accuracy": ("RA %", 100, 1),
    "test_accuracy": ("TA %", 100, 1),
    "mia_entropy_logistic": ("MIA entropy %", 100, 1),
    "mia_confidence_svc": ("MIA confidence %", 100, 1),
    "average_gap": ("average gap", 1, 2),
    "kl_to_retrained": ("KL", 1, 3),
    "js_to_retrained": ("JS", 1, 3),
    "relearn_steps": ("relearn steps", 1, 1),
    "time_ratio": ("time / retrain", 1, 3),
}


def gap_of_means(results: list[dict[str, Any]]) -> float:
    """Mean over FA, RA, TA and MIA of |mean over runs - the retrained models' mean|, in percentage points."""
    gaps = []
    for name in GAP_NAMES:
        ours = [result["metrics"][name]["value"] for result in results]
        theirs = [result["metrics"]["average_gap"]["details"][f"retrained_{name}"] for result in results]
        gaps.append(100 * abs(sum(ours) - sum(theirs)) / len(results))
    return sum(gaps) / len(gaps)


def value_of(result: dict[str, Any], name: str) -> float | None:
    """A column's value in one cell, or None for a diverged run and for a time that is not known."""
    if name == "time_ratio":
        return result["time_ratio"]
    return None if result["diverged"] else result["metrics"][name]["value"]


def values_of(results: list[dict[str, Any]], name: str) -> list[float]:
    """A column's values in the cells that did not diverge."""
    return [value for result in results if (value := value_of(result, name)) is not None]


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """One row for each method, smallest gap of means first after the references. A diverged run empties its row."""
    rows = []
    for row, cells in ((row, results[row]) for row in ordered(results)):
        line = []
        for name, (_, factor, digits) in COLUMNS.items():
            values = values_of(cells, name)
            bad = len(cells) - len(values)
            if not values and not any(
                cell["diverged"] for cell in cells
            ):  # how long a given model was trained is not known
                line.append("-")
                continue
            line.append(f"{bad} of {len(cells)} diverged" if bad else interval([factor * v for v in values], digits))
        means = "" if any(result["diverged"] for result in cells) else f"{gap_of_means(cells):.2f}"
        rows.append([row, means, *line])
    return markdown_table(["method", "gap of means", *(title for title, _, _ in COLUMNS.values())], rows)


def costs(results: dict[str, list[dict[str, Any]]]) -> str:
    """The seconds that retraining and each method took."""
    known = {row: cells for row, cells in results.items() if all(cell["seconds"] is not None for cell in cells)}
    means = {row: sum(cell["seconds"] for cell in cells) / len(cells) for row, cells in known.items()}
    each = ", ".join(f"{row} {means[row]:.1f}" for row in ordered(results) if row not in REFERENCES)
    retraining = f"retraining {means['retrained']:.1f}, " if "retrained" in means else ""
    return f"Seconds of training: {retraining}{each}."


def ordered(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The rows: references first, then methods by their gap of means."""

    def gap(row: str) -> float:
        return float("inf") if any(cell["diverged"] for cell in results[row]) else gap_of_means(results[row])

    first = [row for row in REFERENCES if row in results]
    return first + sorted((row for row in results if row not in first), key=gap)


def write(folder: Path, recipe: dict[str, Any], stamp: str, results: dict, searched: dict, extra: str = "") -> str:
    """Write all files of a comparison and return the Markdown text."""
    seeds = f"{len(recipe['seeds'])} seeds"
    again = f"{AGAIN!r} is what chance makes of both. " if AGAIN in results else ""
    text = (
        f"# {recipe['name']}\n\n{stamp}\n\n"
        f"Forget {recipe['forget']} of {public_name(recipe['data'])}, {_models(recipe)}, "
        f"{seeds}, budget {recipe['budget']} batch gradients of {recipe['batch_size']} samples, "
        f"{recipe['trials']} search trials for every method on the validation split with seeds "
        f"{recipe['search_seeds']} (the smallest average gap wins). Means over seeds with 95 % intervals. "
        "The average gap is the mean distance to the retrained model's FA, RA, TA and MIA entropy, in percentage "
        "points, run by run; the gap of means is the same distance between means over seeds. "
        f"{again}{costs(results)}\n\n{table(results)}\n{extra}\n"
        "![trade-off](tradeoff.png)\n"
    )
    everything = {"recipe": recipe, "stamp": stamp, "search": searched, "results": results}
    write_text(folder / "results.json", json.dumps(everything, indent=1))
    with atomic(folder / "results.csv") as partial, open(partial, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "seed", *COLUMNS, "seconds", "diverged"])
        for row, cells in results.items():
            for cell in cells:
                values = [value_of(cell, name) for name in COLUMNS]
                writer.writerow([row, cell["seed"], *values, cell["seconds"], cell["diverged"] or ""])
    write_text(folder / "results.md", text)
    plot(results, folder / "tradeoff.png", recipe["name"])
    return text


def _models(recipe: dict[str, Any]) -> str:
    if recipe.get("original"):
        return f"original {public_name(recipe['original'])}, retrained {public_name(recipe['retrained'])}"
    return f"model {public_name(recipe['model'])}"


def plot(results: dict[str, list[dict[str, Any]]], path: Path, title: str) -> None:
    """Plot accuracy on forget data against accuracy on test data, means and standard deviations over runs.

    Dashed lines mark the retrained models.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5.5), dpi=120)
    colours = plt.get_cmap("tab20")
    markers, places = "osD^v<>pP*hXd8", {}
    for number, row in enumerate(ordered(results)):
        x, y = ([100 * v for v in values_of(results[row], n)] for n in ("forget_accuracy", "test_accuracy"))
        if not x:
            continue
        places[row] = [sum(v) / len(v) for v in (x, y)]
        (left, wide), (low, tall) = ((m, _deviation(v)) for v, m in zip((x, y), places[row]))
        style = {"retrained": ("*", "black", 15), "original": ("X", "dimgrey", 10)}.get(row)
        marker, colour, size = style or (markers[number % len(markers)], colours(number % 20), 8)
        look: dict[str, Any] = dict(marker=marker, ms=size, ls="", color=colour, label=row, capsize=2)
        axes.errorbar(left, low, xerr=wide, yerr=tall, **look)
        if row == "retrained":
            axes.axvline(left, color="black", lw=0.8, ls="--", zorder=0)
            axes.axhline(low, color="black", lw=0.8, ls="--", zorder=0)
    _zoom(axes, places)
    axes.set_xlabel("accuracy on forget data (%)")
    axes.set_ylabel("accuracy on test data (%)")
    axes.set_title(f"{title}: the closer to the star the better")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.grid(alpha=0.25)
    figure.tight_layout()
    with atomic(path) as partial:
        figure.savefig(partial, format="png")
    plt.close(figure)


def _deviation(values: list[float]) -> float:
    """Sample standard deviation; 0 for one value."""
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)) ** 0.5


def _zoom(axes: Any, places: dict[str, list[float]]) -> None:
    """Set limits around the middle of the field, and name at the edge what lies far outside.

    Far means further from the retrained model than three times the distance of the nearest three quarters.
    """
    outside = set()
    for side, limit in ((0, axes.set_xlim), (1, axes.set_ylim)):
        middle = places["retrained"][side]
        distances = sorted(abs(place[side] - middle) for place in places.values())
        reach = max(3 * distances[(3 * len(distances)) // 4 - 1], 1.0)
        near = [place[side] for place in places.values() if abs(place[side] - middle) <= reach]
        margin = 0.2 * max(max(near) - min(near), 1.0)
        limit(min(near) - margin, max(near) + margin)
        outside |= {row for row, place in places.items() if abs(place[side] - middle) > reach}
    if outside:
        named = "; ".join(f"{row} ({places[row][0]:.0f}, {places[row][1]:.0f})" for row in sorted(outside))
        axes.annotate(f"outside: {named}", (0.01, 0.01), xycoords="axes fraction", fontsize=8, color="dimgrey")
