"""Selective synaptic dampening: shrink the weights that matter for the forget data only. No training."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..saliency.fisher import fisher
from .base import Loop, Method


@dataclass
class SSD(Method):
    """θ_j <- min(b F_all,j / F_forget,j, 1) θ_j  where  F_forget,j > a F_all,j (Foster et al., arXiv 2308.07707).

    F_all is the Fisher of forget and retain data together, by their numbers of samples. One pass over the samples,
    no step.
    """

    name: ClassVar[str] = "ssd"
    paper: ClassVar[str] = "2308.07707"
    trains: ClassVar[bool] = False
    selection: float = field(default=10.0, metadata={"help": "a, how much more a weight must matter for forget data"})
    dampening: float = field(default=1.0, metadata={"help": "b, how little the chosen weights are shrunk"})
    fisher: str = field(default="sample", metadata={"help": "whose gradients are squared: each sample's or batch's"})
    fisher_samples: int = field(default=512, metadata={"help": "samples of each set for the Fisher; 0 is all"})
    fisher_batch_size: int = field(default=32, metadata={"help": "samples a chunk in the Fisher pass"})

    def __post_init__(self):
        for name in ("selection", "dampening"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    @torch.no_grad()
    def edit(self, objective: Any, forget: Any, retain: Any, seed: int) -> None:
        options = dict(
            estimator=self.fisher, max_samples=self.fisher_samples, batch_size=self.fisher_batch_size, seed=seed
        )
        with torch.enable_grad():
            ours, theirs = (fisher(objective, s, forget=f, **options)[0] for s, f in ((forget, True), (retain, False)))
        share = len(forget) / (len(forget) + len(retain))
        for name, p in objective.network.named_parameters():
            if p.requires_grad:
                both = share * ours[name] + (1 - share) * theirs[name]
                factor = (self.dampening * both / ours[name].clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1)
                p.mul_(torch.where(ours[name] > self.selection * both, factor, 1.0))

    def loss(self, loop: Loop, batch: dict[str, Any]) -> Tensor:
        raise RuntimeError("ssd takes no steps")
