"""Rank the rows of a comparison: by their distance to retraining, under a limit on retained and test accuracy.

No row and no trial of a search wins by breaking what is retained.
"""

from typing import Any

from ..evaluation.classification import ATTACKS
from .rows import REFERENCES

MIA = f"mia_{ATTACKS[0][0]}_{ATTACKS[0][1]}"
GAP_NAMES = ("forget_accuracy", "retain_accuracy", "test_accuracy", MIA)
LIMITED = ("retain_accuracy", "test_accuracy")
EVERYTHING = 100.0  # points that a diverged run has lost
ROUNDING = 1e-9  # points; a mean of shares that lies on the limit keeps it


def points_lost(results: list[dict[str, Any]]) -> dict[str, float]:
    """How far the means of retained and of test accuracy lie below the retrained models', in percentage points.

    Args:
        results: the cells of one row, or of one trial, a seed each. A diverged one has lost everything.

    Returns:
        The points by metric; negative where the model is better than the retrained one.
    """
    lost = {}
    for name in LIMITED:
        each = []
        for result in results:
            if result["diverged"]:
                each.append(EVERYTHING)
                continue
            retrained = result["metrics"]["average_gap"]["details"][f"retrained_{name}"]
            each.append(100 * (retrained - result["metrics"][name]["value"]))
        lost[name] = sum(each) / len(each)
    return lost


def excess(results: list[dict[str, Any]], limit: float) -> float:
    """Points that the worse of the two accuracies has lost beyond `limit` points; 0 within the limit."""
    beyond = max(points_lost(results).values()) - limit
    return beyond if beyond > ROUNDING else 0.0


def gap_of_means(results: list[dict[str, Any]]) -> float:
    """Mean over FA, RA, TA and MIA of |mean over runs - the retrained models' mean|, in percentage points."""
    gaps = []
    for name in GAP_NAMES:
        ours = [result["metrics"][name]["value"] for result in results]
        theirs = [result["metrics"]["average_gap"]["details"][f"retrained_{name}"] for result in results]
        gaps.append(100 * abs(sum(ours) - sum(theirs)) / len(results))
    return sum(gaps) / len(gaps)


def ordered(results: dict[str, list[dict[str, Any]]], limit: float) -> list[str]:
    """The rows: references, then methods by gap of means, then those over the limit by how far they are over it."""

    def rank(row: str) -> tuple[float, float]:
        diverged = any(cell["diverged"] for cell in results[row])
        return excess(results[row], limit), float("inf") if diverged else gap_of_means(results[row])

    first = [row for row in REFERENCES if row in results]
    return first + sorted((row for row in results if row not in first), key=rank)


def best_of(results: dict[str, list[dict[str, Any]]], limit: float) -> str | None:
    """The method with the smallest gap of means within the limit, or None if all are over it."""
    for row in ordered(results, limit):
        broken = excess(results[row], limit) or any(cell["diverged"] for cell in results[row])
        if row not in REFERENCES and not broken:
            return row
    return None


def verdict(results: dict[str, list[dict[str, Any]]], limit: float) -> str:
    """Sentences: what the limit is, which row is the best within it, and what was lost by those over it."""
    over = [row for row in ordered(results, limit) if row not in REFERENCES and excess(results[row], limit)]
    said = (
        f"No row may lose more than {limit:g} points of retained (RA) or test accuracy (TA) to the means of the "
        "retrained models. "
    )
    best = best_of(results, limit)
    if best is None:
        return f"{said}Every method is over this limit, so none is the best."
    said += f"The best within this limit is {best} (gap of means {gap_of_means(results[best]):.2f})"
    if not over:
        return f"{said}; no method is over it."
    each = []
    for row in over:
        kept, tested = (round(-points, 1) + 0.0 for points in points_lost(results[row]).values())  # no -0.0
        each.append(f"{row} (RA {kept:+.1f}, TA {tested:+.1f})")
    return f"{said}; over it: {', '.join(each)}."
