"""L1Sparse: fine-tune on retain data under a penalty that makes weights small."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from .base import Batch, Losses, Method, Step, flag


@dataclass(frozen=True)
class L1Sparse(Method):
    """L = mean l(retain) + g_t |θ|_1, g_t = g (1 - progress) (Jia et al., NeurIPS 2023, arXiv 2304.04934)."""

    name: ClassVar[str] = "l1_sparse"
    paper: ClassVar[str] = "2304.04934"
    shards: ClassVar[bool] = False
    streams: ClassVar[tuple[str, ...]] = ("retain",)
    penalty: float = flag(1e-4, "Weight g of the L1 norm at the start.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.penalty < 0:
            raise ValueError(f"penalty must not be negative, got {self.penalty}")

    def loss(self, step: Step, batch: Batch) -> Losses:
        retain = step.losses(batch.retain[0]).mean()
        norm = torch.stack([p.abs().sum() for p in step.parameters]).sum()
        return Losses(retain=retain, total=retain + self.penalty * (1 - step.progress) * norm)
