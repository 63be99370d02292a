"""ESD: where the concept's prompt led, away from it."""

from dataclasses import dataclass
from typing import ClassVar

from .base import Batch, Losses, Method, Step, flag


@dataclass(frozen=True)
class ESD(Method):
    """L = mean ‖ε_θ(x_t, c) - [ε_0(x_t) - η (ε_0(x_t, c) - ε_0(x_t))]‖²,   ε_0 the original model, c the label

    Gandikota et al., ICCV 2023, arXiv 2303.07345. esd-x is `train_method="xattn"` of the objective, esd-u "noxattn".
    x_t is a noised forget image, which the original model itself has drawn where the data is synthesised (the paper
    denoises part of the way instead). A frozen copy of the trained weights in memory; no retain data.
    """

    name: ClassVar[str] = "esd"
    paper: ClassVar[str] = "2303.07345"
    streams: ClassVar[tuple[str, ...]] = ("forget",)
    family: ClassVar[str] = "diffusion"
    needs_original: ClassVar[bool] = True
    negative_guidance: float = flag(1.0, "Strength η of the negative guidance: how far away from the concept.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negative_guidance < 0:
            raise ValueError(f"negative_guidance must not be negative, got {self.negative_guidance}")

    def loss(self, step: Step, batch: Batch) -> Losses:
        null, labelled = step.original(batch.forget, labels=None), step.original(batch.forget)
        target = null - self.negative_guidance * (labelled - null)
        return Losses(forget=step.losses(batch.forget, target=target).mean())
