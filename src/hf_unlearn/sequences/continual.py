"""CLU on every request: learn and forget in one training."""

from dataclasses import dataclass
from typing import ClassVar

from ..methods import CLU, Method
from .strategies import Strategy
from .turns import Turn


@dataclass(frozen=True)
class ContinualUnlearning(Strategy):
    """Learn and forget by CLU, after UG-CLU (arXiv 2505.15178): one training a request, whatever it asks for.

    Data that are known already, as those of a promise to remember what was learnt for a time, are learnt with the
    rest.

    Args:
        method: by default CLU, on classifiers with four repair steps instead of two: from a memory that is smaller by
            far than what it stands for, two lose a point of accuracy (docs/sequences.md).
    """

    name: ClassVar[str] = "clu"
    method: Method | None = None

    def carry_out(self, turn: Turn) -> None:
        usual = CLU(retain_steps=4) if turn.objective.labels_are_targets else CLU()
        self.at_once(turn, "clu", self.method or usual, holdout=turn.holdout)
