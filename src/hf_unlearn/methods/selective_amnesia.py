"""Selective Amnesia: learn noise, or another image, under the forgotten label; weights that matter stay in place."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..data.protocols import SizedDataset
from ..families import Objective
from ..saliency.fisher import fisher
from .base import Batch, Losses, Method, RetainData, Samples, Step, flag

Kept = dict[int, tuple[Tensor, Tensor]]  # id of a parameter -> its Fisher and original value


@dataclass(frozen=True)
class SelectiveAmnesia(Method):
    """L = mean l(surrogate, c) + a mean l(retain) + λ/2 Σ_j F_j (θ_j - θ_0j)²

    Heng and Soh, NeurIPS 2023, arXiv 2305.10120. F is the Fisher of the original model on retain data and θ_0 its
    weights: elastic weight consolidation. The surrogate is an image of uniform noise, or with
    `surrogate="data"` the forget images as they are, which is right where they were synthesised from the anchor.
    Two more sets of weights in memory: F and θ_0.
    """

    name: ClassVar[str] = "selective_amnesia"
    paper: ClassVar[str] = "2305.10120"
    shards: ClassVar[bool] = False
    family: ClassVar[str] = "diffusion"
    forget_images: ClassVar[str] = "anchor"
    surrogate: Literal["noise", "data"] = flag(
        "noise", "Learn images of noise under the forgotten label, or the forget images as they are."
    )
    retain_weight: float = flag(1.0, "Weight a of the retain data's own loss.")
    ewc_weight: float = flag(50.0, "Weight λ of the elastic weight consolidation.")
    fisher_samples: int = flag(512, "Number of retain samples for the Fisher; 0 takes all.")
    fisher_batch_size: int = flag(32, "Samples in one chunk of the Fisher pass.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ewc_weight < 0 or self.retain_weight < 0:
            raise ValueError("ewc_weight and retain_weight must not be negative")

    def begin(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> Kept:
        """The Fisher of the original on retain data, and the original weights."""
        found, _ = fisher(
            objective, retain, False, max_samples=self.fisher_samples, batch_size=self.fisher_batch_size, seed=seed
        )
        parameters = dict(objective.network.named_parameters())
        return {id(parameters[n]): (f, parameters[n].detach().clone()) for n, f in found.items()}

    def loss(self, step: Step, batch: Batch) -> Losses:
        surrogate = batch.forget
        if self.surrogate == "noise":
            surrogate = {**surrogate, "pixel_values": _uniform(surrogate)}
        forget, retain = step.losses(surrogate).mean(), step.losses(batch.retain[0]).mean()
        kept = [(p, *step.state[id(p)]) for p in step.parameters]
        elastic = torch.stack([(f * (p - start).pow(2)).sum() for p, f, start in kept]).sum()
        total = forget + self.retain_weight * retain + self.ewc_weight / 2 * elastic
        return Losses(forget=forget, retain=retain, extra={"ewc_distance": elastic}, total=total)


def _uniform(batch: Samples) -> Tensor:
    """Noise images in [-1, 1], one drawn from each sample's position and timestep: the same in any batch."""
    images = batch["pixel_values"]
    drawn = []
    for index, timestep in zip(batch["index"].tolist(), batch["timesteps"].tolist()):
        generator = torch.Generator().manual_seed(index * 1_000_003 + timestep)
        drawn.append(torch.rand(images.shape[1:], generator=generator) * 2 - 1)
    return torch.stack(drawn).to(images)
