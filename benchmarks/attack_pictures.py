"""The pictures of attack_emoji.py: what an attack had the unlearned model draw, a row a method."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hf_unlearn.attacks.readers import ClassifierReader

SHOWN = 3  # images of each attack
ORDER = {"wordings": "other words", "inversion": "learnt token", "soft_prefix": "soft prefix"}


@dataclass(eq=False)
class KeepingReader(ClassifierReader):
    """A ClassifierReader that remembers in `seen` what it was shown: the first images (N, 3, H, W) of each call."""

    def __post_init__(self) -> None:
        self.seen: list[Tensor] = []  # no field: what an attack finds does not depend on it

    def __call__(self, images: Tensor) -> Tensor:
        self.seen.append(images[:SHOWN].clone())
        return super().__call__(images)


def kept_file(path: Path, make: Callable[[], tuple[dict, Tensor]]) -> dict:
    """The figures that `make` gives first, kept in a JSON file."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(make()[0]))
    return json.loads(path.read_text())


def _file(cache: Path, name: str, attack: str) -> Path:
    return cache / "pictures" / f"{name}|{attack}.pt"


def keep(cache: Path, name: str, attack: str, images: Tensor) -> None:
    """Keep the first images of an attack on the model `name`."""
    path = _file(cache, name, attack)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(images, path)


def draw_attacked(cache: Path, target: tuple[str, str], rows: list[str], seed: int, folder: str) -> None:
    """FOLDER/attacked_NAME.png: a row a method, the first images of each attack that was made on all of them."""
    from hf_unlearn.evaluation.grids import save_grid

    found = {row: {a: _file(cache, "|".join([":".join(target), row, str(seed)]), a) for a in ORDER} for row in rows}
    attacks = [a for a in ORDER if all(paths[a].exists() for paths in found.values())]
    if not attacks:
        print(f"no picture of {target[1]}: no attack drew on all rows")
        return
    grids = {
        row: torch.cat([torch.load(paths[a], weights_only=True) for a in attacks]).unsqueeze(1)
        for row, paths in found.items()
    }
    columns = [ORDER[a] if i == 0 else "" for a in attacks for i in range(SHOWN)]
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_grid(grids, columns, [False] * len(columns), f"{folder}/attacked_{target[1].replace(' ', '_')}.png")
