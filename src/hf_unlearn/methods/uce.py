"""UCE: one linear solve for each key and value of the cross attention. No training."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from ..data.pairs import labels_of
from ..data.protocols import SizedDataset
from ..families import Objective, TextToImage
from .base import EditMethod, Method, RetainData, flag


@dataclass(frozen=True)
class UCE(EditMethod):
    """W' = (e Σ_c (W c*) cᵀ + p Σ_r W r rᵀ + λ W) (e Σ_c c cᵀ + p Σ_r r rᵀ + λ I)⁻¹   for every attn2 to_k and to_v

    Gandikota et al., WACV 2024, arXiv 2308.14761. c are the embeddings of the forget prompts, c* those of their
    anchors and r those of the retain prompts, each at its last token. Nothing but prompts is used: those of the
    forget data and all that have an anchor, whether an image shows them or not.

    CLIP's text encoder is causal: what follows a word knows it too, up to the end and the padding. A model that looks
    there still draws the concept; `tokens="after"` edits these as well.
    """

    name: ClassVar[str] = "uce"
    paper: ClassVar[str] = "2308.14761"
    family: ClassVar[str] = "text to image"
    erase_weight: float = flag(1.0, "Weight e of the forget prompts.")
    preserve_weight: float = flag(1.0, "Weight p of the retain prompts.")
    stay_weight: float = flag(0.5, "Weight λ that keeps all other directions where they are.")
    tokens: Literal["last", "after"] = flag("last", "Edit each prompt's last token, or all tokens after it too.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("erase_weight", "stay_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.preserve_weight < 0:
            raise ValueError(f"preserve_weight must not be negative, got {self.preserve_weight}")

    def resolved(self, objective: Objective) -> Method:
        ready = super().resolved(objective)
        if not getattr(objective, "cross_attends", False):
            raise ValueError(
                f"uce edits cross attention (attn2), which a {type(objective.network).__name__} has not: choose esd, "
                "concept_ablation, salun or sfron"
            )
        if not any("attn2" in name for name, _ in objective.network.named_parameters()):
            raise ValueError("uce edits the UNet's cross attention: choose another train_method")
        return ready

    @torch.no_grad()
    def edit(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> None:
        assert isinstance(objective, TextToImage)  # its family
        retained = set(labels_of(retain) or [])
        erased = sorted(set(labels_of(forget) or []) | (objective.chosen.keys() - retained))
        kept = sorted(retained - set(erased))
        tokens = objective.last_tokens(self.tokens == "after").double()  # (P, n, D)
        anchors = [objective.anchors[label] for label in erased]
        c, anchor, r = (tokens[labels].flatten(0, 1) for labels in (erased, anchors, kept))
        common = self.preserve_weight * r.T @ r + self.stay_weight * torch.eye(tokens.shape[2], dtype=torch.float64)
        left = self.erase_weight * anchor.T @ c + common  # W' = W left right⁻¹, the same for every W
        right = self.erase_weight * c.T @ c + common
        change = torch.linalg.solve(right.T, left.T).T
        for name, p in objective.network.named_parameters():
            if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
                p.copy_(p.double() @ change.to(p.device))
