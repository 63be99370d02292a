"""How requests are carried out: what is trained on what."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from ..data.protocols import SizedDataset
from ..methods import FineTune, Method, NegGradPlus, SFRon
from .measuring import Predict, predictor
from .replay import ExperienceReplay
from .requests import Request
from .tasks import Standing
from .turns import Turn

LEARN_RATE = 1e-3  # of stages that learn, where the arguments give no learning rate


@dataclass(frozen=True)
class Strategy:
    """Base of all strategies: learn first, then forget, each with what the memory holds of the rest.

    Args:
        learn_rate: learning rate of what learns; by default that of the arguments, or 1e-3 where they give none.
    """

    name: ClassVar[str] = ""
    reads_everything: ClassVar[bool] = False  # whether it trains on past data that are not in the memory
    learn_rate: float | None = None

    def carry_out(self, turn: Turn) -> None:
        """Change the model of `turn` so that the request is done."""
        if turn.learn is not None:
            self.learn(turn, turn.learn)
        if turn.forget is not None:
            self.forget(turn, turn.forget)

    def check(self, request: Request, standing: Standing) -> None:
        """Raise ValueError for a request that the strategy cannot carry out, before it is queued.

        Args:
            standing: what is known before it.
        """

    def predictor(self, network: Any, others: Mapping[str, Any]) -> Predict:
        """What the model says, and the further networks that the strategy keeps."""
        return predictor(network)

    def learn(self, turn: Turn, new: SizedDataset) -> None:
        """Learn new samples by experience replay; without a memory, by plain fine-tuning."""
        known = turn.remembered
        if known is None:
            turn.train("learn", FineTune(), retain=new, rate=self.rate(turn))
        else:
            turn.train("learn", ExperienceReplay(), retain=known, learn=new, rate=self.rate(turn))

    def forget(self, turn: Turn, gone: SizedDataset) -> None:
        """Forget samples."""
        raise NotImplementedError

    def at_once(self, turn: Turn, stage: str, method: Method, **options: Any) -> None:
        """One training for all that a request asks. The first request has no memory yet: it is plain fine-tuning."""
        if turn.remembered is None and turn.learn is not None and turn.forget is None:
            turn.train("learn", FineTune(), retain=turn.learn, rate=self.rate(turn))
        else:
            turn.train(stage, method, turn.forget, need(turn), turn.learn, **options)

    def rate(self, turn: Turn) -> float:
        """The learning rate of what learns."""
        if self.learn_rate is not None:
            return self.learn_rate
        return LEARN_RATE if turn.config.find_strength else turn.config.learning_rate

    def as_dict(self) -> dict[str, Any]:
        """Name and options, as JSON."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class Unlearning(Strategy):
    """Learn by experience replay, forget with a method of the library: by default SFR-on on each forget request."""

    name: ClassVar[str] = "sfron"
    method: Method = SFRon()

    def forget(self, turn: Turn, gone: SizedDataset) -> None:
        turn.train("forget", self.method, gone, need(turn), holdout=turn.holdout)


@dataclass(frozen=True)
class Retraining(Strategy):
    """Train a fresh network on all that is known after each request: the reference, which keeps all data.

    Args:
        steps: outer steps of a training; by default as many as learning its tasks one by one takes.
    """

    name: ClassVar[str] = "retrain"
    reads_everything: ClassVar[bool] = True
    steps: int | None = None

    def carry_out(self, turn: Turn) -> None:
        data, fresh = turn.everything, turn.objective.fresh_network(turn.seed)
        turn.objective.network.load_state_dict(fresh.state_dict())
        if data is None:  # everything is forgotten
            return
        tasks = len({turn.after.tasks.task_of[label] for label in turn.after.classes})
        steps = self.steps or (turn.config.max_steps or 0) * tasks or None
        turn.train("retrain", FineTune(), retain=data, rate=self.rate(turn), steps=steps)


@dataclass(frozen=True)
class Replay(Strategy):
    """Learn by experience replay, and forget by nothing but fine-tuning on the memory, which lacks the forgotten."""

    name: ClassVar[str] = "finetune"

    def forget(self, turn: Turn, gone: SizedDataset) -> None:
        turn.train("forget", FineTune(), retain=need(turn), rate=self.rate(turn))


@dataclass(frozen=True)
class ReplayAscent(Strategy):
    """Learn by experience replay; forget by descent on the memory and ascent on the forgotten (`NegGradPlus`)."""

    name: ClassVar[str] = "ascent"
    forget_weight: float = 0.1

    def forget(self, turn: Turn, gone: SizedDataset) -> None:
        turn.train("forget", NegGradPlus(forget_weight=self.forget_weight), gone, need(turn), rate=self.rate(turn))


def need(turn: Turn) -> SizedDataset:
    """What the memory holds. Raises ValueError where that is nothing: there is nothing to hold the rest with."""
    known = turn.remembered
    if known is None:
        raise ValueError(f"request {turn.number}: nothing is left in the memory to keep the rest by")
    return known
