"""CLU on every request: learn and forget in one training."""

from dataclasses import dataclass
from typing import ClassVar

from ..methods import CLU, Method
from .strategies import Strategy, need
from .turns import Turn

DENOISER_RATE = 5e-4  # of a denoiser that learns


@dataclass(frozen=True)
class ContinualUnlearning(Strategy):
    """Learn and forget by CLU, after UG-CLU (arXiv 2505.15178): one training a request, whatever it asks for.

    Data that are known already, as those of a promise to remember what was learnt for a time, are learnt with the
    rest.
    """

    name: ClassVar[str] = "clu"
    method: Method = CLU()

    def carry_out(self, turn: Turn) -> None:
        if turn.objective.labels_are_targets or turn.learn is None or turn.forget is not None:
            self.at_once(turn, "clu", self.method, holdout=turn.holdout)
        else:  # a denoiser's loss hardly tells what it knows, so the end of learning would be found too early
            known = need(turn)
            turn.train("clu", self.method, retain=known, learn=turn.learn, rate=self.learn_rate or DENOISER_RATE)
