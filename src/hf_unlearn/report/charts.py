"""Charts as inline SVG: no script, no file, colours from the page's style sheet.

Text in a chart is markup-escaped; a chart says in its label what a reader who does not see it would miss.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 10, 36


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` + 1 round numbers, 1, 2 or 5 times a power of ten apart, the first <= low, the last >= high."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def line_chart(points: Sequence[tuple[float, float | None]], name: str, across: str = "outer step") -> Markup:
    """`points` (x, y) as a line, 0 on the y axis; a y that is None leaves a gap."""
    known = [(x, y) for x, y in points if y is not None]
    ys, xs = ticks(min(0.0, *(y for _, y in known)), max(0.0, *(y for _, y in known))), [x for x, _ in points]
    x_ticks = _whole(ticks(min(xs), max(xs)), min(xs), max(xs))

    def place(x: float, y: float) -> tuple[float, float]:
        wide = (x - min(xs)) / ((max(xs) - min(xs)) or 1)
        high = (y - ys[0]) / (ys[-1] - ys[0])
        return LEFT + wide * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - high * (HEIGHT - TOP - BOTTOM)

    parts = []
    for y in ys:
        _, top = place(xs[0], y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{top:.1f}" y2="{top:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{top + 4:.1f}" text-anchor="end">{y:.4g}</text>')
    for x in x_ticks:
        left, _ = place(x, ys[0])
        parts.append(f'<text x="{left:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(across)}</text>')
    parts += [_line([place(x, y) for x, y in run]) for run in _runs(points)]
    label = f"{name} by {across}: {_said(known, across)}"
    return Markup(f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{{}}">{{}}</svg>').format(
        label, Markup("".join(parts))
    )


def bars(shares: Sequence[tuple[str, float | None]], mark: float | None = None) -> Markup:
    """Horizontal bars of shares in [0, 1], (style class, share) each, and a line at `mark`. The numbers stand beside
    it in the page, so that a screen reader passes it by."""
    high = 12 * len(shares)
    parts = [f'<rect class="track" width="100" height="{high}"/>']
    for i, (kind, share) in enumerate(shares):
        if share is not None:
            width = 100 * min(max(share, 0.0), 1.0)
            parts.append(f'<rect class="{escape(kind)}" y="{12 * i + 1}" width="{width:.2f}" height="10"/>')
    if mark is not None:
        x = min(max(100 * mark, 0.6), 99.4)
        parts.append(f'<line class="mark" x1="{x:.2f}" x2="{x:.2f}" y1="0" y2="{high}"/>')
    box = f'class="bars" viewBox="0 0 100 {high}" style="height:{high}px" preserveAspectRatio="none"'
    return Markup(f'<svg {box} aria-hidden="true">{"".join(parts)}</svg>')


def heat_map(names: Sequence[str], matrix: Sequence[Sequence[float]], name: str) -> Markup:
    """A square matrix of shares in [0, 1], a row for each name; the columns are the same names, by number."""
    side, left, top = 20, 150, 18
    parts = []
    for i, row in enumerate(matrix):
        y = top + side * i
        text = names[i] if len(names[i]) <= 20 else f"{names[i][:19]}…"
        parts.append(f'<text x="{left - 6}" y="{y + 14}" text-anchor="end">{escape(text)} {i + 1}</text>')
        parts.append(f'<text x="{left + side * i + side / 2}" y="{top - 5}" text-anchor="middle">{i + 1}</text>')
        for j, share in enumerate(row):
            place = f'x="{left + side * j}" y="{y}" width="{side - 1}" height="{side - 1}"'
            parts.append(f'<rect class="track" {place}/>')
            parts.append(f'<rect class="after" {place} fill-opacity="{min(max(share, 0.0), 1.0):.2f}"/>')
    said = "; ".join(f"{names[i]} {100 * row[i]:.0f} %" for i, row in enumerate(matrix))
    box = f'viewBox="0 0 {left + side * len(names)} {top + side * len(names)}"'
    drawn = f'<svg class="chart map" {box} role="img" aria-label="{{}}">{{}}</svg>'
    return Markup(drawn).format(f"{name}: read as asked: {said}", Markup("".join(parts)))


def _whole(values: list[float], low: float, high: float) -> list[float]:
    """The ticks inside the data, whole numbers only: steps have no halves."""
    return [v for v in values if low <= v <= high and v == int(v)] or [low]


def _runs(points: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def _line(places: list[tuple[float, float]]) -> str:
    if len(places) == 1:
        return f'<circle class="dot" cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3"/>'
    return f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>'


def _said(known: list[tuple[float, float]], across: str) -> str:
    (first, start), (last, end) = known[0], known[-1]
    (lowest, least), (highest, most) = min(known, key=lambda p: p[1]), max(known, key=lambda p: p[1])
    return (
        f"{start:.4g} at {across} {first:g}, {end:.4g} at {last:g}; "
        f"lowest {least:.4g} at {lowest:g}, highest {most:.4g} at {highest:g}"
    )
