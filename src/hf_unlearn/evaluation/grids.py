"""Picture grids: a row for each model, a column for each class or prompt."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.files import atomic
from .generation import SamplingConfig, sample_classes


def before_after(
    pipelines: dict[str, Any],
    classes: Sequence[int],
    forget_classes: Sequence[int],
    path: str | Path,
    config: SamplingConfig | None = None,
    title: str = "",
    class_names: dict[int, str] | None = None,
) -> None:
    """Write a PNG with a row for each model, a column for each class and 2x2 samples in each cell.

    The samples of a column start from the same noise.
    """
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
    """Plot `grids` (name -> (columns, n, C, H, W) in [-1, 1], n a square number) and frame the marked columns."""
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
    """Tile images (n, C, H, W), n a square number, with seams of one pixel: 2x2 gives (2H+1, 2W+1[, 3])."""
    count, channels, height, width = images.shape
    side = math.isqrt(count)
    sheet = torch.zeros(channels, side * (height + 1) - 1, side * (width + 1) - 1)
    for k in range(side**2):
        top, left = (k // side) * (height + 1), (k % side) * (width + 1)
        sheet[:, top : top + height, left : left + width] = images[k]
    return sheet[0].numpy() if channels == 1 else ((sheet.permute(1, 2, 0) + 1) / 2).clamp(0, 1).numpy()
