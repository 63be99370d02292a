"""BadTeacher: on forget data learn from a network that knows nothing, on retain data from the original."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ..data.protocols import SizedDataset
from ..families import Objective
from .base import Batch, Losses, Method, RetainData, Step, flag


@dataclass(frozen=True)
class BadTeacher(Method):
    """L = mean KL(random || θ) on forget + mean KL(original || θ) on retain (Chundawat et al., arXiv 2205.08096).

    Classifiers only. Two frozen copies of the weights in memory, without gradients or optimizer state. Both terms
    count alike here; the paper shuffles the forget samples among a part of the retain samples.
    """

    name: ClassVar[str] = "bad_teacher"
    paper: ClassVar[str] = "2205.08096"
    needs_original: ClassVar[bool] = True
    family: ClassVar[str] = "classifier"
    temperature: float = flag(1.0, "Temperature of both distillations.")

    def begin(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> nn.Module:
        """The random network."""
        return objective.fresh_network(0).requires_grad_(False)

    def loss(self, step: Step, batch: Batch) -> Losses:
        retain = batch.retain[0]
        random = step.predict(batch.forget, network=step.state)
        forget_losses = step.losses(batch.forget, target=random, temperature=self.temperature)
        retain_losses = step.losses(retain, target=step.original(retain), temperature=self.temperature)
        return Losses(forget=forget_losses.mean(), retain=retain_losses.mean())
