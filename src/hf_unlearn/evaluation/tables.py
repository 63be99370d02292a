"""Tables and pictures that a person can judge."""

import json
import math
import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.files import atomic, write_text
from .generation import GenerationFigures, SamplingConfig, sample_classes
from .metric import Metric, is_share, version_of


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns, readable in a terminal too."""
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def interval(values: Sequence[float], digits: int) -> str:
    """Mean ± half-width of a 95 % interval (Student), or the value alone."""
    from scipy import stats

    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    half = stats.t.ppf(0.975, len(values) - 1) * spread / len(values) ** 0.5
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def stamp(*packages: str) -> str:
    """Date, versions of `packages` and machine, for the head of a table."""
    return f"{date.today()}, {version_of(*packages)}, {platform.machine()} CPU, {os.cpu_count()} cores"


def figures_table(figures: dict[str, GenerationFigures]) -> str:
    """One row a model: accuracy of the forgotten class, of the retained ones, Frechet distance."""
    rows = [
        [name, f"{f.forget_accuracy:.1%}", f"{f.retain_accuracy:.1%}", f"{f.frechet_distance:.2f}"]
        for name, f in figures.items()
    ]
    return markdown_table(["model", "forgotten class", "retained classes", "Frechet distance"], rows)


def before_after(
    pipelines: dict[str, Any],
    classes: Sequence[int],
    forget_classes: Sequence[int],
    path: str | Path,
    config: SamplingConfig | None = None,
    title: str = "",
    class_names: dict[int, str] | None = None,
) -> None:
    """PNG: a row a model, a column a class, 2x2 samples a cell, the same noise in a column."""
    grids = {}
    draw = config or SamplingConfig()
    four = SamplingConfig(4, draw.guidance_scale, draw.num_inference_steps, draw.seed, 4)
    for name, pipeline in pipelines.items():
        images = sample_classes(pipeline, list(classes), four)
        grids[name] = images.view(len(classes), 4, *images.shape[1:])
    names = [str((class_names or {}).get(c, c)) for c in classes]
    save_grid(grids, names, [c in forget_classes for c in classes], path, title)


def save_grid(
    grids: dict[str, Tensor], columns: Sequence[str], marked: Sequence[bool], path: str | Path, title: str = ""
) -> None:
    """Draw `grids` (name -> (columns, n, C, H, W) in [-1, 1], n a square number) with the marked columns framed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    count = len(columns)
    figure, axes = plt.subplots(
        len(grids), count, figsize=(0.95 * count + 1.2, 1.0 * len(grids) + 0.75), squeeze=False, dpi=150
    )
    for row, (name, cells) in enumerate(grids.items()):
        for column in range(count):
            axis = axes[row][column]
            axis.imshow(_tile(cells[column]), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_color("#d1242f" if marked[column] else "#d0d7de")
                spine.set_linewidth(2.5 if marked[column] else 0.8)
            if row == 0:
                label = f"{columns[column]}\nforget" if marked[column] else columns[column]
                axis.set_title(label, fontsize=11, color="#d1242f" if marked[column] else "#1f2328")
            if column == 0:
                axis.set_ylabel(name, fontsize=11, rotation=0, ha="right", va="center", labelpad=8)
    if title:
        figure.suptitle(title, fontsize=12, y=0.99)
    figure.tight_layout(pad=0.4, rect=(0, 0, 1, 0.97 if title else 1))
    with atomic(path) as partial:
        figure.savefig(partial, format="png")
    plt.close(figure)


def _tile(images: Tensor) -> Any:
    """(n, C, H, W), n a square number, as a sheet with one-pixel seams; 2x2 is (2H+1, 2W+1) or (2H+1, 2W+1, 3)."""
    count, channels, height, width = images.shape
    side = math.isqrt(count)
    sheet = torch.zeros(channels, side * (height + 1) - 1, side * (width + 1) - 1)
    for k in range(side**2):
        top, left = (k // side) * (height + 1), (k % side) * (width + 1)
        sheet[:, top : top + height, left : left + width] = images[k]
    return sheet[0].numpy() if channels == 1 else ((sheet.permute(1, 2, 0) + 1) / 2).clamp(0, 1).numpy()


def loss_metrics(metrics: dict[str, dict[str, float]], samples: dict[str, int]) -> dict[str, dict[str, Metric]]:
    """What `UnlearnTrainer.evaluate` found, {model: its result}, as figures; `samples` are those of each part."""
    return {
        model: {
            f"{part}_loss": Metric(
                found[f"eval_{part}_loss"], f"mean training loss on the {part} data", count, version_of("torch")
            )
            for part, count in samples.items()
        }
        for model, found in metrics.items()
    }


def losses_table(metrics: dict[str, dict[str, float]], folder: str | Path) -> str:
    """For models without a judge: `UnlearnTrainer.evaluate` of the original and of the unlearned model, row by row.

    Also writes `figures.json` and `figures.md`.
    """
    parts = [part for part in ("forget", "retain") if all(f"eval_{part}_loss" in m for m in metrics.values())]
    figures = {name: {part: m[f"eval_{part}_loss"] for part in parts} for name, m in metrics.items()}
    rows = [[name, *(f"{row[part]:.4f}" for part in parts)] for name, row in figures.items()]
    table = markdown_table(["model", *(f"{part} loss" for part in parts)], rows)
    write_figures(folder, figures, table)
    return table


def metric_table(figures: dict[str, dict[str, Metric]]) -> str:
    """One row a model, a column a figure: "–" where nothing was measured, and how often a detector failed."""
    names = list(dict.fromkeys(name for row in figures.values() for name in row))

    def cell(name: str, metric: Metric | None) -> str:
        if metric is None:
            return "–"
        failed = f" ({metric.details['n_failed']} failed)" if "n_failed" in metric.details else ""
        if metric.value is None:
            return f"–{failed}"
        return f"{metric.value:.1%}{failed}" if is_share(name) else f"{metric.value:.4g}{failed}"

    rows = [[model, *(cell(name, row.get(name)) for name in names)] for model, row in figures.items()]
    return markdown_table(["model", *(name.replace("_", " ") for name in names)], rows)


def write_metrics(figures: dict[str, dict[str, Metric]], folder: str | Path) -> str:
    """Write `figures.json` (every figure with its definition) and `figures.md` to `folder`; returns the table."""
    table = metric_table(figures)
    values = {model: {name: metric.as_dict() for name, metric in row.items()} for model, row in figures.items()}
    write_figures(folder, values, table)
    return table


def write_figures(folder: str | Path, values: dict, table: str) -> None:
    """`figures.json` and `figures.md`, each whole or not at all."""
    write_text(Path(folder) / "figures.json", json.dumps(values, indent=2))
    write_text(Path(folder) / "figures.md", table + "\n")
