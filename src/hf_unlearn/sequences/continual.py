"""CLU on every request: learn and forget in one training."""

from dataclasses import dataclass
from typing import ClassVar

from ..methods import CLU, FineTune, Method
from .strategies import Strategy, need
from .turns import Turn


@dataclass(frozen=True)
class ContinualUnlearning(Strategy):
    """Learn and forget by CLU, after UG-CLU (arXiv 2505.15178): one training a request, whatever it asks for.

    The first request has no memory yet, so it is plain fine-tuning. Data that are known already, as those of a promise
    to remember what was learnt for a time, are learnt with the rest.
    """

    name: ClassVar[str] = "clu"
    method: Method = CLU()

    def carry_out(self, turn: Turn) -> None:
        known = turn.remembered
        if known is None and turn.learn is not None and turn.forget is None:
            turn.train("learn", FineTune(), retain=turn.learn, rate=self.rate(turn))
        else:
            turn.train("clu", self.method, turn.forget, need(turn), turn.learn, holdout=turn.holdout)
