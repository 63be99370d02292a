"""Sharpness-aware minimisation, the baseline of TADA: the same loss, at the worst weights nearby."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..methods import Method
from ..methods.base import Batch, Losses, Step, flag
from ..methods.look_ahead import inner_gradient


@dataclass(frozen=True)
class SharpnessAware(Method):
    """min L(θ + ρ g / ‖g‖),   g = ∇L(θ), a constant   (Foret et al., ICLR 2021, arXiv 2010.01412, eq. 2 and 3)

    Trains on the retain set, by whatever optimizer the run has. It takes two gradients a step. It is no way to forget,
    so it is not in the table of methods.
    """

    name: ClassVar[str] = "sam"
    paper: ClassVar[str] = "2010.01412"
    streams: ClassVar[tuple[str, ...]] = ("retain",)
    shards: ClassVar[bool] = False
    rho: float = flag(0.05, "Radius ρ of the neighbourhood whose worst weights are trained.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rho > 0:
            raise ValueError(f"rho must be a number above 0, got {self.rho}")

    @property
    def batch_gradients(self) -> float:
        return 2

    def loss(self, step: Step, batch: Batch) -> Losses:
        _, gradient = inner_gradient(step, lambda: step.losses(batch.retain[0]).mean())
        norm = torch.stack([torch.linalg.vector_norm(g) for g in gradient]).square().sum().sqrt()
        scale = self.rho / (norm + 1e-12)
        return Losses(retain=step.losses(batch.retain[0], shift=[-scale * g for g in gradient]).mean())
