"""The chart of a comparison: a plane of forgetting and retaining with the limit drawn, and the intervals below it.

It is drawn narrow, so that its text is still read on a phone.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.files import atomic
from ..evaluation.tables import half_width
from .ranking import LIMITED, MIA, excess, ordered
from .rows import REFERENCES

WIDTH, PLANE, ROW = 4.8, 3.7, 0.185  # inches: of the chart, of the plane's height, and of a row of intervals
DOTS, SIZE = 200, 7.5  # per inch, and points of the text
WITHIN, OVER, GREY, INK, BAND = "#0969da", "#bc4c00", "#59636e", "#1f2328", "#fff1e5"
NEXT = 6  # points of print from a point to a name that needs no line
LINEAR = 1.0  # points up to which the axes are linear; beyond, logarithmic
FORGETTING = "points from retraining on forget data"
RETAINING = "points of accuracy lost"
Spread = tuple[float, float | None]  # mean over the seeds, half of its 95 % interval (Student)


def sides_of(result: dict[str, Any]) -> tuple[float, float] | None:
    """(forgetting, retaining) of one cell in percentage points; None for a diverged run.

    Forgetting: mean distance of accuracy and of membership inference on the forget data to the retrained model's.
    Retaining: what retained or test accuracy lies below the retrained model's, the worse of the two, as the limit
    reads it; negative where the model is better.
    """
    if result["diverged"]:
        return None
    values = {name: 100 * metric["value"] for name, metric in result["metrics"].items() if metric["value"] is not None}
    told = result["metrics"]["average_gap"]["details"]
    theirs = {name: 100 * told[f"retrained_{name}"] for name in ("forget_accuracy", *LIMITED)}
    away = [abs(values["forget_accuracy"] - theirs["forget_accuracy"])]
    if f"retrained_{MIA}" in told and MIA in values:
        away.append(abs(values[MIA] - 100 * told[f"retrained_{MIA}"]))
    return sum(away) / len(away), max(theirs[name] - values[name] for name in LIMITED)


def spreads(results: dict[str, list[dict[str, Any]]]) -> dict[str, tuple[Spread, Spread]]:
    """Mean and half interval of both sides, by row; a row with a diverged run has none."""
    found = {}
    for row, cells in results.items():
        pairs = [sides_of(cell) for cell in cells]
        whole = [pair for pair in pairs if pair is not None]
        if len(whole) == len(pairs) and whole:
            found[row] = (_spread([a for a, _ in whole]), _spread([b for _, b in whole]))
    return found


def _spread(values: Sequence[float]) -> Spread:
    return sum(values) / len(values), half_width(values) if len(values) > 1 else None


def plot(results: dict[str, list[dict[str, Any]]], path: str | Path, title: str, limit: float) -> None:
    """Write the chart as a PNG.

    Args:
        results: the cells of each row, a seed each.
        limit: points that retained and test accuracy may lose.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = spreads(results)
    rows = [row for row in ordered(results, limit) if row in found]
    over = {row for row in rows if row not in REFERENCES and excess(results[row], limit)}
    high = PLANE + 0.9 + ROW * len(rows)
    with plt.rc_context({"font.size": SIZE, "font.family": "DejaVu Sans", "axes.linewidth": 0.6}):
        figure, axes = plt.subplots(
            2, 1, figsize=(WIDTH, high), dpi=DOTS, gridspec_kw={"height_ratios": [PLANE, ROW * len(rows) + 0.4]}
        )
        figure.suptitle(title, fontsize=SIZE + 1.5, fontweight="bold", x=0.02, ha="left", color=INK)
        axes[1].set_axis_off()
        left, right = (axes[1].inset_axes([x, 0, 0.33, 1]) for x in (0.3, 0.67))
        _plane(axes[0], found, rows, over, limit)
        _strip(left, found, rows, over, 0, FORGETTING.replace(" on", "\non"), None)
        _strip(right, found, rows, over, 1, f"{RETAINING},\nlimit {limit:g}", limit)
        left.set_yticks(range(len(rows)), [_short(row) for row in rows])
        for label, row in zip(left.get_yticklabels(), rows):
            label.set_color(_colour(row, over))
        right.set_yticks([])
        figure.tight_layout(rect=(0, 0, 1, 0.985))
        _label(figure, axes[0], found, rows, over)
        with atomic(path) as partial:
            figure.savefig(partial, format="png")
        plt.close(figure)


def _colour(row: str, over: set[str]) -> str:
    return INK if row == "retrained" else GREY if row in REFERENCES else OVER if row in over else WITHIN


def _short(row: str, most: int = 22) -> str:
    """A row's name on two lines at most, broken behind its method."""
    method, colon, options = row.partition(":")
    return row if len(row) <= most or not colon else f"{method}:\n{options}"


def _plane(axis: Any, found: dict[str, Any], rows: list[str], over: set[str], limit: float) -> None:
    """A point a row, retraining at 0, and the limit as a band."""
    for row in rows:
        (x, _), (y, _) = found[row]
        colour = _colour(row, over)
        marker, size = ("*", 9) if row == "retrained" else ("X", 5) if row in REFERENCES else ("o", 4.5)
        axis.plot(x, y, marker=marker, ms=size, color=colour, ls="", zorder=3)
    xs, ys = ([found[row][side][0] for row in rows] for side in (0, 1))
    axis.set_xscale("symlog", linthresh=LINEAR)
    axis.set_yscale("symlog", linthresh=LINEAR)
    axis.set_xlim(-0.12, max(xs) * 1.9 + 1)
    low, high = min(*ys, 0.0) - 0.5, max(*ys, limit) * 1.6 + 0.5
    axis.set_ylim(high, low)  # what loses little stands above
    axis.axhspan(limit, high, color=BAND, zorder=0, linewidth=0)
    axis.axhline(limit, color=OVER, lw=0.9, ls="--")
    # Within the band, on the side that few methods come to.
    place: dict[str, Any] = {"xycoords": axis.get_yaxis_transform(), "textcoords": "offset points", "va": "top"}
    axis.annotate(f"limit: {limit:g} points", (0.015, limit), (0, -2), color=OVER, **place)
    axis.axhline(0, color=GREY, lw=0.5, ls=":")
    axis.axvline(0, color=GREY, lw=0.5, ls=":")
    _ticks(axis.xaxis, 0.0, axis.get_xlim()[1])
    _ticks(axis.yaxis, low, high)
    axis.set_xlabel(f"{FORGETTING}   (left: as retrained)")
    axis.set_ylabel(f"{RETAINING}   (up: none)")


def _ticks(axis: Any, low: float, high: float, few: bool = False) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    steps = [0, 1, 10, 100] if few and high > 3 else [0, 0.5, 1, 2, 5, 10, 20, 50, 100]
    axis.set_major_locator(FixedLocator([v for v in (*(-s for s in steps[:0:-1]), *steps) if low <= v <= high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def _strip(
    axis: Any, found: dict[str, Any], rows: list[str], over: set[str], side: int, name: str, limit: float | None
) -> None:
    """A row's mean with its interval, row below row. A distance is cut at 0, below which there is none."""
    least = 0.0 if side == 0 else -math.inf
    ends = {}
    for k, row in enumerate(rows):
        (mean, half), colour = found[row][side], _colour(row, over)
        ends[row] = (max(mean - (half or 0.0), min(least, mean)), mean + (half or 0.0))
        axis.plot(ends[row], (k, k), color=colour, lw=1.1, zorder=2)
        axis.plot(mean, k, marker="o", ms=2.8, color=colour, zorder=3)
    if limit is not None:
        axis.axvline(limit, color=OVER, lw=0.9, ls="--")
    axis.axvline(0, color=GREY, lw=0.5)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xscale("symlog", linthresh=LINEAR)
    low = min(0.0, *(end for end, _ in ends.values())) - 0.3
    high = max(limit or 0.0, *(end for _, end in ends.values())) * 1.15 + 0.3
    axis.set_xlim(low, high)
    _ticks(axis.xaxis, low, high, few=True)
    axis.xaxis.set_tick_params(labelsize=SIZE - 1.5)
    axis.set_title(name, fontsize=SIZE, color=INK, pad=4)
    axis.grid(axis="y", lw=0.3, alpha=0.5)
    axis.tick_params(length=2)
    for edge in ("top", "right", "left"):
        axis.spines[edge].set_visible(False)


def _label(figure: Any, axis: Any, found: dict[str, Any], rows: list[str], over: set[str]) -> None:
    """Write each row's name beside its point: at the nearest free place, with a line where that is not next to it.

    Names do not cover each other; lines stay off other names where they can.
    """
    from matplotlib.patheffects import withStroke  # a name is read where it stands on a line of the axes

    figure.canvas.draw()
    frame, pixels = axis.get_window_extent(), figure.dpi / 72
    points = {row: axis.transData.transform((found[row][0][0], found[row][1][0])) for row in rows}
    taken = [(x - 5 * pixels, y - 5 * pixels, x + 5 * pixels, y + 5 * pixels) for x, y in points.values()]
    taken.append(_box(axis.texts[0].get_window_extent()))
    names: list[Sequence[float]] = []
    lines: list[Sequence[float]] = []
    for row in rows:
        text = axis.annotate(
            _short(row), points[row], xycoords="figure pixels", textcoords="figure pixels", fontsize=SIZE - 0.5
        )
        text.set_color(_colour(row, over))
        text.set_path_effects([withStroke(linewidth=2, foreground=BAND if row in over else "white")])
        size = text.get_window_extent()
        wide, high = size.width, size.height
        best = None
        for reach in (6, 12, 20, 30, 42, 56, 72, 90, 110):
            for turn in range(16):
                angle = turn * math.pi / 8
                x = points[row][0] + reach * pixels * math.cos(angle) + wide / 2 * (math.cos(angle) - 1)
                y = points[row][1] + reach * pixels * math.sin(angle) + high / 2 * (math.sin(angle) - 1)
                box = (x, y, x + wide, y + high)
                inside = frame.x0 <= box[0] and box[2] <= frame.x1 and frame.y0 <= box[1] and box[3] <= frame.y1
                end = (min(max(points[row][0], box[0]), box[2]), min(max(points[row][1], box[1]), box[3]))
                line = _along(points[row], end) if reach > NEXT else []
                crossed = sum(_common(part, name) > 0 for part in line for name in names)
                covered = (
                    sum(_common(box, other) for other in taken) + sum(_common(box, other) for other in lines) / 10
                )
                crowd = covered + 10 * crossed + (0 if inside else 1e9)
                if best is None or crowd < best[0]:
                    best = (crowd, box, end, line)
            if best is not None and best[0] == 0:
                break
        assert best is not None
        _, box, end, line = best
        text.set_position((box[0], box[1]))
        taken.append(box)
        lines += line
        names.append(box)
        if line:
            inverse = axis.transData.inverted()
            ends = [inverse.transform(points[row]), inverse.transform(end)]
            axis.plot(*zip(*ends), color=_colour(row, over), lw=0.5, alpha=0.8, zorder=2)


def _along(start: Sequence[float], end: Sequence[float], parts: int = 12) -> list[tuple[float, float, float, float]]:
    """Boxes of two pixels along a line, beyond the point itself."""
    places = [[a + (b - a) * k / parts for a, b in zip(start, end)] for k in range(3, parts)]
    return [(x - 1, y - 1, x + 1, y + 1) for x, y in places]


def _box(extent: Any) -> tuple[float, float, float, float]:
    return extent.x0, extent.y0, extent.x1, extent.y1


def _common(box: Sequence[float], other: Sequence[float]) -> float:
    """The area that two boxes share."""
    wide = min(box[2], other[2]) - max(box[0], other[0])
    high = min(box[3], other[3]) - max(box[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)
