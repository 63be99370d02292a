"""Selective synaptic dampening: shrink the weights that matter for the forget data only. No training."""

import warnings
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import torch

from ..common.limits import check_limits
from ..data.protocols import SizedDataset
from ..families import Objective
from ..saliency.fisher import fishers_of_all
from .base import EditMethod, Method, RetainData, flag

PUBLISHED = 10.0  # the paper's a for whole classes, at forget shares of 1 to 5 %


@dataclass(frozen=True)
class SSD(EditMethod):
    """θ_j <- min(b F_all,j / F_forget,j, 1) θ_j  where  F_forget,j > a F_all,j (Foster et al., arXiv 2308.07707).

    F_all is the Fisher of the full training set, forget data included, as in the paper. One pass, no step.

    `fisher="sample"` is the paper's formula. There F_all = s F_forget + (1 - s) F_retain with the forget share s, so
    that no weight can be selected once a s >= 1; such an `a` is refused. By default `a` asks for F_forget > 10
    F_retain, which is the published 10 for a small share and 5.3 for a tenth. `fisher="batch"` is the released code:
    squared gradients of batches, those of F_all drawn from both sets. It has no such bound, and `a` is 10.
    """

    name: ClassVar[str] = "ssd"
    paper: ClassVar[str] = "2308.07707"
    selection: float | None = flag(
        None,
        "Threshold a: how many times more a weight must matter for forget data than for all data; by default ten "
        "times more than for retain data.",
    )
    dampening: float = flag(1.0, "Strength b: the larger it is, the less the chosen weights shrink.")
    fisher: Literal["sample", "batch"] = flag("sample", "Square the gradient of each sample, or of each batch.")
    fisher_samples: int = flag(512, "Number of samples of each set for the Fisher; 0 takes all.")
    fisher_batch_size: int = flag(32, "Samples in one chunk of the Fisher pass.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, selection="(0, inf)", dampening="(0, inf)")

    def sized(self, forget: int | None, retain: int | None) -> Method:
        if retain is None:
            raise ValueError("ssd weighs the Fishers by the numbers of samples: give retain data with a length")
        share, exact = (forget or 0) / max((forget or 0) + retain, 1), self.fisher == "sample"
        if self.selection is None:
            return replace(self, selection=threshold(PUBLISHED, share) if exact else PUBLISHED)
        if exact and self.selection * share >= 1:
            raise ValueError(
                f"ssd selects no weight at selection={self.selection:g}: the forget set is {share:.3g} of all data, "
                f"so none matters {1 / share:.4g} times more for it than for all; set selection below that, or omit it"
            )
        return self

    @torch.no_grad()
    def edit(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> None:
        sized = cast(SizedDataset, retain)
        selection = cast(float, cast(SSD, self.sized(len(forget), len(sized))).selection)  # decided, if by a trainer
        options = (self.fisher_samples, self.fisher_batch_size, seed)
        with torch.enable_grad():
            ours, both = fishers_of_all(objective, forget, sized, self.fisher, *options)
        selected = 0
        for name, p in objective.network.named_parameters():
            if p.requires_grad:
                chosen, smallest = ours[name] > selection * both[name], torch.finfo(torch.float32).tiny
                factor = (self.dampening * both[name] / ours[name].clamp(min=smallest)).clamp(max=1)
                p.mul_(torch.where(chosen, factor, 1.0))
                selected += int(chosen.sum())
        if not selected:
            warnings.warn(f"ssd selected no weight at selection={selection:g}: the model is as it was", stacklevel=2)


def threshold(ratio: float, share: float) -> float:
    """The a for which F_forget > a F_all says F_forget > ratio F_retain, F_all being of both by their shares."""
    return ratio / (1 - share + ratio * share)
