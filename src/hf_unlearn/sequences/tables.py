"""The cells of sequences as a table, with the aims that they are held to."""

from collections.abc import Callable, Sequence
from typing import Any

from ..evaluation.tables import interval, markdown_table
from .bench import Cell, figures_of

OURS, EXTENDED, REFERENCE = "clu", "clu extended", "retrain"
# metric -> (column title, factor, digits)
COLUMNS = {
    "AA": ("AA %", 100, 1),
    "FM": ("FM points", 100, 1),
    "LA": ("LA %", 100, 1),
    "FA": ("FA %", 100, 1),
    "counterfactual_FA": ("FA counterfactual %", 100, 1),
    "relapse": ("relapse points", 100, 1),
    "AGJS": ("AGJS", 1, 3),
    "IGJS": ("IGJS", 1, 3),
    "ratio": ("AGJS / IGJS", 1, 2),
    "time": ("time / retraining", 1, 2),
    "kept": ("data kept / all", 1, 3),
}
Rows = dict[str, dict[str, list[float]]]  # method -> metric -> a value for each seed


def needed(result: dict[str, Any]) -> dict[str, Any]:
    """Of a cell only what the tables are made of: the cell and its metrics."""
    return {"cell": result["cell"], "metrics": metrics_of(result)}


def metrics_of(result: dict[str, Any]) -> dict[str, float | None]:
    """The metrics of a cell, or of what `needed` kept of it."""
    return result["metrics"] if "metrics" in result else figures_of(result)


def rows_of(results: Sequence[dict[str, Any]]) -> Rows:
    """The metrics of cells that differ in method and seed alone.

    `time` is CPU time of training over that of retraining at each request, of the same seed; `kept` the size of the
    replay memory over that of all that is known, a mean over requests.
    """
    spent = {r["cell"]["seed"]: metrics_of(r)["cpu"] for r in results if r["cell"]["method"] == REFERENCE}
    rows: Rows = {}
    for result in results:
        cell, found = result["cell"], metrics_of(result)
        values = {name: found[name] for name in COLUMNS if name in found}
        across, inside = found["AGJS"], found["IGJS"]
        if across is not None and inside:
            values["ratio"] = across / inside
        whole = spent.get(cell["seed"])
        if whole and found["cpu"] is not None:
            values["time"] = found["cpu"] / whole
        values["kept"] = 1.0 if cell["method"] == REFERENCE else found["kept"]
        for name, value in values.items():
            if value is not None:
                rows.setdefault(Cell(**cell).label, {}).setdefault(name, []).append(value)
    return rows


def table(rows: Rows) -> str:
    """A row for each method: means over seeds with 95 % intervals."""

    def cell(values: list[float] | None, factor: float, digits: int) -> str:
        return "-" if not values else interval([factor * value for value in values], digits)

    titles = ["method", *(title for title, _, _ in COLUMNS.values())]
    lines = [[name, *(cell(row.get(c), f, d) for c, (_, f, d) in COLUMNS.items())] for name, row in rows.items()]
    return markdown_table(titles, lines)


def aims(rows: Rows) -> list[tuple[str, str, bool]]:
    """(aim, what was measured, whether it is reached) for OURS, extended where that was measured as requests are by
    default, against the best of the others with a memory."""
    if OURS not in rows:
        return []
    ours = {name: sum(values) / len(values) for name, values in rows.get(EXTENDED, rows[OURS]).items()}
    others = {method: row for method, row in rows.items() if method.partition(" ")[0] not in (OURS, REFERENCE)}

    def best(metric: str, choose: Callable[..., Any]) -> tuple[str, float] | None:
        means = [(m, sum(row[metric]) / len(row[metric])) for m, row in others.items() if row.get(metric)]
        return choose(means, key=lambda pair: pair[1]) if means else None

    found = []
    for metric, choose, sign, what in (("AA", max, 1, "AA no lower"), ("FM", min, -1, "FM no higher")):
        other = best(metric, choose)
        if other is not None and metric in ours:
            said = f"{100 * ours[metric]:.1f} against {100 * other[1]:.1f} ({other[0]})"
            found.append((f"{what} than the best baseline's", said, sign * (ours[metric] - other[1]) >= -1e-9))
    if "FA" in ours and "counterfactual_FA" in ours:
        apart = 100 * abs(ours["FA"] - ours["counterfactual_FA"])
        found.append(("FA within 2 points of the counterfactual", f"{apart:.1f} points", apart <= 2))
    if "ratio" in ours:
        found.append(("AGJS within 1.2 of IGJS", f"{ours['ratio']:.2f}", ours["ratio"] <= 1.2))
    if "relapse" in ours:
        found.append(("relapse at most 2 points", f"{100 * ours['relapse']:.1f} points", ours["relapse"] <= 0.02))
    if "time" in ours:
        found.append(("at most 1/10 of retraining's time", f"{ours['time']:.2f}", ours["time"] <= 0.1))
    return found


def section(results: Sequence[dict[str, Any]]) -> str:
    """The Markdown of one group of cells: its table and its aims."""
    rows, first = rows_of(results), results[0]["cell"]
    seeds = len({result["cell"]["seed"] for result in results})
    title = f"{first['data']}, {first['model']}, {first['scenario']}, memory of {first['memory']} samples"
    how = f"{seeds} seed{'s' * (seeds > 1)}, {first['steps']} steps of {first['batch']} samples a stage"
    said = [f"- {'reached' if met else 'missed'}: {aim}: {value}" for aim, value, met in aims(rows)]
    return f"### {title}\n\n{how}.\n\n{table(rows)}\n\n" + "\n".join(said) + "\n"


def page(results: Sequence[dict[str, Any]]) -> str:
    """Sections of all cells, those of a group together in the order in which they come."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(Cell(**result["cell"]).group[:-1], []).append(result)
    return "\n".join(section(group) for group in groups.values())
