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
    """

    name: ClassVar[str] = "clu"
    method: Method = CLU()

    def carry_out(self, turn: Turn) -> None:
        self.at_once(turn, "clu", self.method, holdout=turn.holdout)
