"""Membership inference: which forget samples a classifier still gives away as training data."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..evaluation.classification import predictions
from ..evaluation.iam import fitting_score, membership_scores
from ..evaluation.rmia import REFERENCES, of_classes, rmia, rmia_members
from ..methods.base import flag
from .base import Attack, Found, Subject, Suite
from .classifiers import FAMILIES, data_of, references_of
from .pictures import original_of


@dataclass(frozen=True)
class ClassifierIAM(Attack):
    """A forget sample counts where it lies nearer to the original's fit than to that of a model that never saw it.

    That is an IAM membership above a half (`evaluation.iam.membership_scores`). One shadow is enough, and each seed
    takes another one of the references. On samples that the original fits no better than the shadow it says nothing,
    so read it beside the retrained model.
    """

    name: ClassVar[str] = "iam"
    suite: ClassVar[Suite] = "quick"
    families: ClassVar[tuple[str, ...]] = FAMILIES
    paper: ClassVar[str] = "Wang et al., USENIX Security 2025, arXiv 2506.06112"
    same_samples: ClassVar[bool] = True

    @property
    def budget(self) -> str:
        return "outputs of the model and of the original, one shadow model"

    def attack(self, subject: Subject, seed: int) -> Found:
        data = data_of(subject.target, "the forget samples")
        references = references_of(subject, max(1, len(subject.references)), "IAM")
        models = (subject.model, original_of(subject, "IAM"), references[seed % len(references)])
        outputs = [predictions(model, data) for model in models]
        with torch.no_grad():
            scores = membership_scores(*(fitting_score(p.logits, p.labels) for p in outputs))
        return Found(tuple((scores > 0.5).tolist()), details={"unlearning_score": 1 - scores.mean().item()})


@dataclass(frozen=True)
class ClassifierRMIA(Attack):
    """A forget sample counts where RMIA takes it for a member, with `fpr` of held-out samples taken for members too.

    `evaluation.rmia`: the held-out samples are of the classes of the forget samples. Half of them, which the seed
    draws, are the population, and the others set the threshold. `fpr` itself is what chance gives.
    """

    name: ClassVar[str] = "rmia"
    suite: ClassVar[Suite] = "quick"
    families: ClassVar[tuple[str, ...]] = FAMILIES
    paper: ClassVar[str] = "Zarifzadeh et al. 2024, arXiv 2312.03262"
    same_samples: ClassVar[bool] = True
    limits: ClassVar[dict[str, str]] = {"references": "[1, inf)", "fpr": "[0, 1)", "gamma": "(0, inf)"}

    references: int = flag(REFERENCES, "Models that never saw the samples.")
    fpr: float = flag(0.1, "Share of held-out samples that may be taken for members.")
    gamma: float = flag(1.0, "How many times likelier than a population sample a member is, see rmia_scores.")

    @property
    def budget(self) -> str:
        return f"outputs of the model, {self.references} reference models, held-out samples"

    def attack(self, subject: Subject, seed: int) -> Found:
        forget = data_of(subject.target, "the forget samples")
        unseen = data_of(subject.unseen, "held-out samples of the same classes")
        references = references_of(subject, self.references, "RMIA")
        classes = sorted(set(forget.labels or []))
        ours, *theirs = (
            (predictions(model, forget), of_classes(predictions(model, unseen), classes))
            for model in (subject.model, *references)
        )
        members = rmia_members(*ours, theirs, self.fpr, self.gamma, seed)
        metric = rmia(*ours, theirs, self.gamma)
        details = {"auc": metric.number, "auc_interval": metric.details["interval"], "fpr": self.fpr}
        return Found(tuple(members.tolist()), details=details)
