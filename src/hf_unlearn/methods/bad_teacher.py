"""BadTeacher: on forget data learn from a network that knows nothing, on retain data from the original."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from .base import Loop, Method


@dataclass
class BadTeacher(Method):
    """L = mean KL(random || θ) on forget + mean KL(original || θ) on retain (Chundawat et al., arXiv 2205.08096).

    Classifiers only. Two frozen copies of the weights in memory, without gradients or optimizer state.
    """

    name: ClassVar[str] = "bad_teacher"
    paper: ClassVar[str] = "2205.08096"
    needs_original: ClassVar[bool] = True
    family: ClassVar[str] = "classifier"
    temperature: float = field(default=1.0, metadata={"help": "of both distillations"})

    def loss(self, loop: Loop, batch: dict[str, Any]) -> Tensor:
        options = {"temperature": self.temperature}
        forget = loop.matching_losses(batch["forget"], to="random", **options).mean()
        retain = loop.matching_losses(batch["retain"][0], to="original", **options).mean()
        loop.record("forget_loss", forget.detach())
        loop.record("retain_loss", retain.detach())
        return forget + retain
