"""Selective Amnesia: learn noise, or another image, under the forgotten label; weights that matter stay in place."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..saliency.fisher import fisher
from .base import Loop, Method


@dataclass
class SelectiveAmnesia(Method):
    """L = mean l(surrogate, c) + a mean l(retain) + λ/2 Σ_j F_j (θ_j - θ_0j)²

    Heng and Soh, NeurIPS 2023, arXiv 2305.10120. F is the Fisher of the original model on retain data and θ_0 its
    weights: elastic weight consolidation. The surrogate is an image of uniform noise, or with
    `surrogate="data"` the forget images as they are, which is right where they were synthesised from the anchor.
    Two more sets of weights in memory.
    """

    name: ClassVar[str] = "selective_amnesia"
    paper: ClassVar[str] = "2305.10120"
    shards: ClassVar[bool] = False
    family: ClassVar[str] = "diffusion"
    forget_images: ClassVar[str] = "anchor"
    needs_original: ClassVar[bool] = True
    surrogate: str = field(default="noise", metadata={"help": "noise, or data: the forget images as they are"})
    retain_weight: float = field(default=1.0, metadata={"help": "a, weight of the retain data's own loss"})
    ewc_weight: float = field(default=50.0, metadata={"help": "λ of the elastic weights"})
    fisher_samples: int = field(default=512, metadata={"help": "retain samples for the Fisher; 0 is all"})
    fisher_batch_size: int = field(default=32, metadata={"help": "samples a chunk in the Fisher pass"})

    def __post_init__(self):
        if self.surrogate not in ("noise", "data"):
            raise ValueError(f"surrogate must be noise or data, got {self.surrogate!r}")
        if self.ewc_weight < 0 or self.retain_weight < 0:
            raise ValueError("ewc_weight and retain_weight must not be negative")
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}  # id of a parameter -> its Fisher and original value

    def begin(self, objective: Any, forget: Any, retain: Any, seed: int) -> None:
        options = dict(max_samples=self.fisher_samples, batch_size=self.fisher_batch_size, seed=seed)
        found, _ = fisher(objective, retain, forget=False, **options)
        parameters = dict(objective.network.named_parameters())
        self._kept = {id(parameters[n]): (f, parameters[n].detach().clone()) for n, f in found.items()}

    def loss(self, loop: Loop, batch: dict[str, Any]) -> Tensor:
        forget = batch["forget"]
        if self.surrogate == "noise":
            forget = {**forget, "pixel_values": _uniform(forget)}
        learnt, retain = loop.losses(forget).mean(), loop.losses(batch["retain"][0]).mean()
        elastic = sum((f * (p - start).pow(2)).sum() for p in loop.parameters for f, start in [self._kept[id(p)]])
        loop.record("forget_loss", learnt.detach())
        loop.record("retain_loss", retain.detach())
        return learnt + self.retain_weight * retain + self.ewc_weight / 2 * elastic


def _uniform(batch: dict[str, Tensor]) -> Tensor:
    """Noise images in [-1, 1], one drawn from each sample's position and timestep: the same in any batch."""
    images = batch["pixel_values"]
    drawn = []
    for index, timestep in zip(batch["index"].tolist(), batch["timesteps"].tolist()):
        generator = torch.Generator().manual_seed(index * 1_000_003 + timestep)
        drawn.append(torch.rand(images.shape[1:], generator=generator) * 2 - 1)
    return torch.stack(drawn).to(images)
