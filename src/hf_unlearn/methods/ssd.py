"""Selective synaptic dampening: shrink the weights that matter for the forget data only. No training."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from ..data.protocols import SizedDataset
from ..data.streaming import RetainStream
from ..families import Objective
from ..saliency.fisher import fisher
from .base import EditMethod, RetainData, flag


@dataclass(frozen=True)
class SSD(EditMethod):
    """θ_j <- min(b F_all,j / F_forget,j, 1) θ_j  where  F_forget,j > a F_all,j (Foster et al., arXiv 2308.07707).

    F_all is the Fisher of forget and retain data together, by their numbers of samples. One pass over the samples,
    no step.
    """

    name: ClassVar[str] = "ssd"
    paper: ClassVar[str] = "2308.07707"
    selection: float = flag(10.0, "Threshold a: how many times more a weight must matter for forget data.")
    dampening: float = flag(1.0, "Strength b: the larger it is, the less the chosen weights shrink.")
    fisher: Literal["sample", "batch"] = flag("sample", "Square the gradient of each sample, or of each batch.")
    fisher_samples: int = flag(512, "Number of samples of each set for the Fisher; 0 takes all.")
    fisher_batch_size: int = flag(32, "Samples in one chunk of the Fisher pass.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("selection", "dampening"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    @torch.no_grad()
    def edit(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> None:
        if isinstance(retain, RetainStream):
            raise ValueError("ssd weighs the Fishers by the numbers of samples: give retain data with a length")
        options = (self.fisher, self.fisher_samples, self.fisher_batch_size, seed)
        with torch.enable_grad():
            ours, theirs = fisher(objective, forget, True, *options)[0], fisher(objective, retain, False, *options)[0]
        share = len(forget) / (len(forget) + len(retain))
        for name, p in objective.network.named_parameters():
            if p.requires_grad:
                both = share * ours[name] + (1 - share) * theirs[name]
                factor = (self.dampening * both / ours[name].clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1)
                p.mul_(torch.where(ours[name] > self.selection * both, factor, 1.0))
