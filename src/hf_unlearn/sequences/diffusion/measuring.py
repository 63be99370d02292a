"""How far a diffusion model is from the first one, on fixed draws and on pictures that it replays."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...families.denoising import Denoising

DRAWS, BATCH = 64, 16


@torch.no_grad()
def outputs(objective: Denoising, network: Any, rows: Sequence[tuple[Tensor, int]], seed: int) -> Tensor:
    """(DRAWS, ...) what a network predicts for pictures under labels, each met as often as there are draws."""
    found = []
    with objective.measuring():
        for start in range(0, DRAWS, BATCH):
            part = [rows[(start + i) % len(rows)] for i in range(BATCH)]
            batch = {
                "pixel_values": torch.stack([picture for picture, _ in part]),
                "labels": torch.tensor([label for _, label in part]),
            }
            drawn = objective.draw(batch, torch.Generator().manual_seed(seed + start))
            batch |= {name: value for name, value in drawn.items() if name != "drop_labels"}
            device = next(network.parameters()).device
            placed = {name: value.to(device) for name, value in batch.items()}
            found.append(objective.predict(network, placed).float().flatten(1).cpu())
    return torch.cat(found)


def left(
    objective: Denoising, first: Any, pictures: Mapping[int, Sequence[Tensor]], gone: Mapping[int, int], seed: int
) -> float:
    """How much of some forgotten labels c is left: 1 as in the first model f_0, 0 as its anchors a,

        1 - Σ <f(x|c) - f_0(x|c), f_0(x|a) - f_0(x|c)> / Σ ‖f_0(x|a) - f_0(x|c)‖²

    Args:
        pictures: {anchor: its pictures}, of which x are noised; those of another label where it has none.
        gone: {c: a}, at least one.
    """
    others = [picture for several in pictures.values() for picture in several]
    own, anchored = [], []
    for label, anchor in gone.items():
        for picture in list(pictures.get(anchor) or others)[:4]:
            own.append((picture, label))
            anchored.append((picture, anchor))
    was, end = (outputs(objective, first, rows, seed) for rows in (own, anchored))
    now, way = outputs(objective, objective.network, own, seed), end - was
    return 1 - float(((now - was) * way).sum() / way.square().sum().clamp(min=1e-12))


def drift(objective: Denoising, first: Any, rows: Sequence[tuple[Tensor, int]], seed: int) -> float:
    """The mean squared distance of retained outputs from the first model's, over the mean square of the latter."""
    was, now = (outputs(objective, network, rows, seed) for network in (first, objective.network))
    return float((now - was).square().sum() / was.square().sum().clamp(min=1e-12))
