"""Selective synaptic dampening: shrink the weights that matter for the forget data only. No training."""

import warnings
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, cast

import torch
from torch.utils.data import ConcatDataset

from ..common.limits import check_limits
from ..data.pairs import subset
from ..data.protocols import SizedDataset
from ..families import Objective
from ..saliency.fisher import fisher
from ..saliency.masks import Fisher
from .base import EditMethod, Method, RetainData, flag

PUBLISHED = 10.0  # the paper's a for whole classes, at forget shares of 1 to 5 %


@dataclass(frozen=True)
class SSD(EditMethod):
    """θ_j <- min(b F_all,j / F_forget,j, 1) θ_j  where  F_forget,j > a F_all,j (Foster et al., arXiv 2308.07707).

    F_all is the Fisher of the full training set, as in the paper: of forget and retain data together. One pass over
    the samples, no step.

    `fisher="sample"` is the paper's formula, means of squared per-sample gradients. There F_all = s F_forget +
    (1 - s) F_retain with the forget share s, so F_forget is never more than F_all / s and no weight can be selected
    once a s >= 1; such an `a` is refused. By default `a` asks for F_forget > 10 F_retain: a = 10 / (1 - s + 10 s),
    which is the published 10 for a small share and 5.3 for a tenth. `fisher="batch"` is the released code: squared
    gradients of batches, those of F_all drawn from both sets together. It has no such bound, and `a` is 10.
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
        check_limits(self, fisher_samples="[0, inf)", fisher_batch_size="[1, inf)")
        for name in ("selection", "dampening"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")

    def sized(self, forget: int | None, retain: int | None) -> Method:
        if retain is None:
            raise ValueError("ssd weighs the Fishers by the numbers of samples: give retain data with a length")
        share = (forget or 0) / ((forget or 0) + retain)
        if self.selection is None:
            return replace(self, selection=threshold(PUBLISHED, share) if self.fisher == "sample" else PUBLISHED)
        if self.fisher == "sample" and self.selection * share >= 1:
            raise ValueError(
                f"ssd selects no weight at selection={self.selection:g}: the forget set is {share:.3g} of all data, "
                f"so no weight matters {1 / share:.4g} times more for it than for all; set selection below that, or "
                "leave it out"
            )
        return self

    @torch.no_grad()
    def edit(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> None:
        # Where there is a trainer this has been decided already.
        selection = cast(SSD, self.sized(len(forget), len(cast(SizedDataset, retain)))).selection
        with torch.enable_grad():
            ours, everything = self._fishers(objective, forget, cast(SizedDataset, retain), seed)
        selected = 0
        for name, p in objective.network.named_parameters():
            if p.requires_grad:
                chosen = ours[name] > selection * everything[name]
                smallest = torch.finfo(torch.float32).tiny
                factor = (self.dampening * everything[name] / ours[name].clamp(min=smallest)).clamp(max=1)
                p.mul_(torch.where(chosen, factor, 1.0))
                selected += int(chosen.sum())
        if not selected:
            warnings.warn(f"ssd selected no weight at selection={selection:g}: the model is as it was", stacklevel=2)

    def _fishers(
        self, objective: Objective, forget: SizedDataset, retain: SizedDataset, seed: int
    ) -> tuple[Fisher, Fisher]:
        """The Fishers of the forget data and of all data."""
        options = (self.fisher, self.fisher_samples, self.fisher_batch_size, seed)
        ours, _ = fisher(objective, forget, True, *options)
        if self.fisher == "batch":
            return ours, fisher(objective, mixed(forget, retain, seed), False, *options)[0]
        theirs, _ = fisher(objective, retain, False, *options)
        share = len(forget) / (len(forget) + len(retain))
        return ours, {name: share * ours[name] + (1 - share) * theirs[name] for name in ours}


def threshold(ratio: float, share: float) -> float:
    """The a for which F_forget > a F_all says F_forget > ratio F_retain, F_all being of both by their shares."""
    return ratio / (1 - share + ratio * share)


def mixed(forget: SizedDataset, retain: SizedDataset, seed: int) -> SizedDataset:
    """Both sets together, shuffled."""
    parts: Any = [forget, retain]
    order = torch.randperm(len(forget) + len(retain), generator=torch.Generator().manual_seed(seed))
    return subset(cast(SizedDataset, ConcatDataset(parts)), order.tolist())
