"""Residual knowledge: which forget samples are recognised in their neighbourhood more often than by retraining."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..evaluation.residual import Norm, recognised_nearby, residual_of
from ..methods.base import flag
from .base import Attack, Found, Subject, Suite
from .classifiers import FAMILIES, data_of, references_of


@dataclass(frozen=True)
class ClassifierResidual(Attack):
    """A forget sample counts where r_τ = Pr[m(x') = y] / Pr[a(x') = y] > 1, x' in the ball of radius τ around it.

    a is the first reference, a model trained without the samples; details hold the ratio over all samples. Of two
    retrained models each recognises some samples more often, so read it beside another one.

    The radius is in the units of what the classifier takes: 8/255 of pixels in [0, 1] is 16/255 in [-1, 1].
    """

    name: ClassVar[str] = "residual"
    suite: ClassVar[Suite] = "quick"
    families: ClassVar[tuple[str, ...]] = FAMILIES
    paper: ClassVar[str] = "Hsu et al., NeurIPS 2025, arXiv 2601.22359"
    same_samples: ClassVar[bool] = True
    limits: ClassVar[dict[str, str]] = {"tau": "(0, inf)", "draws": "[1, inf)"}

    tau: float = flag(16 / 255, "Radius of the ball.")
    norm: Norm = flag("linf", "Norm of the ball.")
    draws: int = flag(100, "Images drawn near each sample.")
    low: float = flag(-1.0, "Value of the darkest valid pixel.")
    high: float = flag(1.0, "Value of the brightest valid pixel.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm not in ("linf", "l2"):
            raise ValueError(f"norm {self.norm!r} is not one of linf, l2")
        if not self.low < self.high:
            raise ValueError(f"valid pixels lie in [{self.low:g}, {self.high:g}], which is empty: set low below high")

    @property
    def budget(self) -> str:
        return f"outputs of the model and of one retrained model on {self.draws} images near each forget sample"

    def attack(self, subject: Subject, seed: int) -> Found:
        data = data_of(subject.target, "the forget samples")
        (retrained,) = references_of(subject, 1, "residual knowledge")
        valid = torch.tensor(self.low), torch.tensor(self.high)
        models = [subject.model, retrained]
        ours, theirs = recognised_nearby(models, data, self.tau, valid, self.draws, self.norm, seed)
        metric = residual_of(ours, theirs, self.tau, self.norm, self.draws, seed)
        details = {name: metric.details.get(name) for name in ("interval", "recognised", "recognised_by_retrained")}
        return Found(tuple((ours > theirs).tolist()), details={"ratio": metric.value, **details})
