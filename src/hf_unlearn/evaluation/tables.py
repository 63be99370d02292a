"""Tables of metrics, as Markdown and JSON."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from ..common.files import write_text
from .generation import GenerationFigures
from .metric import Metric, is_share, share_interval, share_text, version_of


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table with aligned columns, which also reads well in a terminal."""
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def interval(values: Sequence[float], digits: int) -> str:
    """Format the mean ± the half-width of its 95 % interval (Student), or a single value alone."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {half_width(values):.{digits}f}"


def share_of_runs(shares: Sequence[float], samples: int) -> str:
    """Format the mean of shares of several runs in %, with its 95 % interval: "100.0 [87.5, 100.0]".

    The interval holds the Wilson interval of all samples together, without which nine hits of nine in each run would
    look certain, and the Student interval over the runs, whose spread the samples of one run do not show.

    Args:
        shares: from 0 to 1, one a run.
        samples: of one run.
    """
    mean, count = sum(shares) / len(shares), len(shares)
    low, high = share_interval(mean, samples * count)
    half = half_width(shares) if count > 1 else 0.0
    low, high = min(low, max(mean - half, 0.0)), max(high, min(mean + half, 1.0))
    return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def half_width(values: Sequence[float]) -> float:
    """Half of the width of the 95 % interval of a mean (Student), of at least two values."""
    from scipy import stats

    mean = sum(values) / len(values)
    spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    return float(stats.t.ppf(0.975, len(values) - 1) * spread / len(values) ** 0.5)


def stamp(*packages: str) -> str:
    """Describe date, versions of `packages` and machine, for the head of a table."""
    return f"{date.today()}, {version_of(*packages)}, {platform.machine()} CPU, {os.cpu_count()} cores"


def figures_table(figures: dict[str, GenerationFigures]) -> str:
    """Format a row for each model: accuracy of the forgotten and the retained classes, and Frechet distance.

    The accuracies have their 95 % interval; two more columns hold those of another sampler, if there are any.
    """
    others = list(dict.fromkeys(name for f in figures.values() for name in f.other_sampler))

    def row(f: GenerationFigures) -> list[str]:
        metrics = f.metrics()
        shares = [metrics.get(name) for name in ("forget_accuracy", "retain_accuracy", *others)]
        cells = ["–" if m is None else share_text(m.number, m.samples) for m in shares]
        return [*cells[:2], f"{f.frechet_distance:.2f}", *cells[2:]]

    kinds = {"forget": "forgotten class", "retain": "retained classes"}
    more = [f"{kinds[name.split('_')[0]]} ({name.rsplit('_', 1)[1].upper()})" for name in others]
    header = ["model", *kinds.values(), "Frechet distance", *more]
    return markdown_table(header, [[name, *row(f)] for name, f in figures.items()])


def loss_metrics(metrics: dict[str, dict[str, float]], sets: Any) -> dict[str, dict[str, Metric]]:
    """Convert the results of `UnlearnTrainer.evaluate`, by model, to metrics; `sets`: the trainer's `eval_dataset`."""
    return {
        model: {
            f"{part}_loss": Metric(
                found[f"eval_{part}_loss"], f"mean training loss on the {part} data", len(samples), version_of("torch")
            )
            for part, samples in sets.items()
            if part in ("forget", "retain")
        }
        for model, found in metrics.items()
    }


def losses_table(metrics: dict[str, dict[str, float]], folder: str | Path) -> str:
    """Write `figures.json` and `figures.md` with the losses of each model, for models without a classifier.

    `metrics` holds the result of `UnlearnTrainer.evaluate` for each model. Return the table.
    """
    parts = [part for part in ("forget", "retain") if all(f"eval_{part}_loss" in m for m in metrics.values())]
    figures = {name: {part: m[f"eval_{part}_loss"] for part in parts} for name, m in metrics.items()}
    rows = [[name, *(f"{row[part]:.4f}" for part in parts)] for name, row in figures.items()]
    table = markdown_table(["model", *(f"{part} loss" for part in parts)], rows)
    write_figures(folder, figures, table)
    return table


def metric_table(figures: dict[str, dict[str, Metric]]) -> str:
    """Format a row for each model and a column for each metric. Shares have their 95 % interval.

    A cell is "–" where nothing was measured, and says how often a detector failed.
    """
    names = list(dict.fromkeys(name for row in figures.values() for name in row))

    def cell(name: str, metric: Metric | None) -> str:
        if metric is None:
            return "–"
        failed = f" ({metric.details['n_failed']} failed)" if "n_failed" in metric.details else ""
        if metric.value is None:
            return f"–{failed}"
        return f"{share_text(metric.value, metric.samples) if is_share(name) else f'{metric.value:.4g}'}{failed}"

    rows = [[model, *(cell(name, row.get(name)) for name in names)] for model, row in figures.items()]
    return markdown_table(["model", *(name.replace("_", " ") for name in names)], rows)


def write_metrics(figures: dict[str, dict[str, Metric]], folder: str | Path) -> str:
    """Write `figures.json` (every metric with its definition) and `figures.md` to `folder`. Return the table."""
    table = metric_table(figures)
    values = {model: {name: metric.as_dict() for name, metric in row.items()} for model, row in figures.items()}
    write_figures(folder, values, table)
    return table


def write_figures(folder: str | Path, values: dict, table: str) -> None:
    """Write `figures.json` and `figures.md`, each atomically."""
    write_text(Path(folder) / "figures.json", json.dumps(values, indent=2))
    write_text(Path(folder) / "figures.md", table + "\n")
