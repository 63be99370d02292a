"""L1Sparse: fine-tune on retain data under a penalty that makes weights small."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from .base import Loop, Method


@dataclass
class L1Sparse(Method):
    """L = mean l(retain) + g_t |θ|_1, g_t = g (1 - progress) (Jia et al., NeurIPS 2023, arXiv 2304.04934)."""

    name: ClassVar[str] = "l1_sparse"
    paper: ClassVar[str] = "2304.04934"
    shards: ClassVar[bool] = False
    streams: ClassVar[tuple[str, ...]] = ("retain",)
    penalty: float = field(default=1e-4, metadata={"help": "g, the weight of the L1 norm at the start"})

    def __post_init__(self):
        if self.penalty < 0:
            raise ValueError(f"penalty must not be negative, got {self.penalty}")

    def loss(self, loop: Loop, batch: dict[str, Any]) -> Tensor:
        retain = loop.losses(batch["retain"][0]).mean()
        loop.record("retain_loss", retain.detach())
        norm = sum(p.abs().sum() for p in loop.parameters)
        return retain + self.penalty * (1 - loop.progress) * norm
