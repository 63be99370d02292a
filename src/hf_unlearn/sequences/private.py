"""CLPU-DER++: what is learnt for a time has a network of its own, and forgetting is to throw it away."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..data.protocols import SizedDataset
from ..evaluation.classification import Predictions, predictions
from ..methods import FineTune
from ..methods.base import Batch, Losses, Method, Step, flag
from .measuring import Predict
from .replay import new_and_known
from .requests import Request
from .strategies import Strategy
from .tasks import Standing
from .turns import Turn

SIDE = "task-"  # and the classes, of the names of networks


@dataclass(frozen=True)
class DarkReplay(Method):
    """DER++ (Buzzega et al., arXiv 2004.07211): L = mean l(new) + a mean |z - z_0|² + b mean l(memory).

    z are logits on the memory. z_0 are those of the model before the request; the paper keeps those that a sample had
    when it came into the memory.
    """

    name: ClassVar[str] = "der"
    paper: ClassVar[str] = "2004.07211"
    streams: ClassVar[tuple[str, ...]] = ("retain",)
    learns: ClassVar[bool] = True
    needs_original: ClassVar[bool] = True
    family: ClassVar[str] = "classifier"
    logit_weight: float = flag(0.1, "Weight a of the distance between logits.")
    memory_weight: float = flag(0.5, "Weight b of the loss on the memory.")

    def loss(self, step: Step, batch: Batch) -> Losses:
        losses, is_new = new_and_known(step, batch)
        known = batch.retain[0]
        logits: Any = step.losses(known, predict=True)  # with gradient, unlike `step.predict`
        apart = (logits.float() - step.original(known).float()).square().sum(1).mean()
        new, old = losses[is_new].mean(), losses[~is_new].mean()
        return Losses(
            retain=old,
            extra={"learn_loss": new},
            total=new + self.logit_weight * apart + self.memory_weight * old,
        )


@dataclass(frozen=True)
class PrivateNetworks(Strategy):
    """CLPU-DER++ (Liu et al., arXiv 2203.12817).

    What is to be remembered is learnt by the main network with DER++. What is learnt for a time goes to a copy of the
    main network, which replays the remembered samples of the memory and no others. A promise to remember what has
    such a copy has the main network learn it, and throws the copy away. To forget is to throw it away, which is exact.

    Without being told the task, the networks speak as detectors: with s_t the probability that the copy of task t
    gives to the classes of t,

        p(c) ∝ p_t(c) Π_{u≠t} (1 - s_u)  for a class of t,    p(c) ∝ p_main(c) Π_u (1 - s_u)  for any other.

    The paper is told the task, and its copies are trained on theirs alone.
    """

    name: ClassVar[str] = "clpu"

    def check(self, request: Request, standing: Standing) -> None:
        change, learnt = standing.change(request), standing.temporary
        gone, task_of, labels = request.to_forget, standing.tasks.task_of, standing.tasks.labels
        if gone is None:
            return
        touched = {task_of[labels[position]] for position in change.forget}
        whole = standing.tasks.of_classes(label for task in touched for label in standing.tasks.classes[task])
        if not change.forget <= learnt or (whole & learnt) - change.forget:
            raise ValueError("clpu forgets whole tasks that were learnt for a time, and nothing else")

    def carry_out(self, turn: Turn) -> None:
        for task in self._tasks(turn, turn.change.forget):
            del turn.others[f"{SIDE}{task}"]
        if turn.learn is None:
            return
        remembered = turn.after.remembered if not turn.temporary else turn.before.remembered
        without = {*turn.change.learn, *(set(turn.memory.positions) - remembered)}
        known = turn.memory.dataset(without=without)
        if not turn.temporary:
            self._learn(turn, turn.learn, known, None)
            for task in self._tasks(turn, turn.change.learn):
                turn.others.pop(f"{SIDE}{task}", None)
            return
        (task,) = self._tasks(turn, turn.change.learn)
        copied = copy.deepcopy(turn.objective.network)
        self._learn(turn, turn.learn, known, copied)
        turn.others[f"{SIDE}{task}"] = copied

    def _learn(self, turn: Turn, new: SizedDataset, known: SizedDataset | None, network: Any) -> None:
        if known is None:
            turn.train("learn", FineTune(), retain=new, network=network, rate=self.rate(turn))
        else:
            turn.train("learn", DarkReplay(), retain=known, learn=new, network=network, rate=self.rate(turn))

    def _tasks(self, turn: Turn, positions: Any) -> list[str]:
        """The tasks of samples, as the names of networks have them: the task's classes."""
        tasks = turn.before.tasks
        numbers = sorted({tasks.task_of[tasks.labels[position]] for position in positions})
        return ["-".join(map(str, tasks.classes[number])) for number in numbers]

    def predictor(self, network: Any, others: Mapping[str, Any]) -> Predict:
        def predict(data: SizedDataset) -> Predictions:
            main = predictions(network, data)
            copies = {name: predictions(other, data) for name, other in others.items()}
            classes = {name: [int(label) for label in name.removeprefix(SIDE).split("-")] for name in copies}
            sides = {name: (classes[name], found.logits.log_softmax(1)) for name, found in copies.items()}
            return Predictions(detected(main.logits.log_softmax(1), list(sides.values())), main.labels)

        return predict


def detected(main: Tensor, sides: list[tuple[list[int], Tensor]]) -> Tensor:
    """Log probabilities (N, classes) of `PrivateNetworks`, not normalised.

    Args:
        main: log probabilities (N, classes) of the main network.
        sides: of each copy its classes, and its log probabilities.
    """
    found = main.double().clone()
    own = [log_p.double()[:, classes].logsumexp(1) for classes, log_p in sides]
    absent = [torch.log1p(-log_s.exp().clamp(max=1 - 1e-6)) for log_s in own]
    for classes, _ in sides:
        found[:, classes] = -torch.inf
    for number in range(len(sides)):
        found = found + absent[number][:, None]
    for number, (classes, log_p) in enumerate(sides):
        others = sum((absent[k] for k in range(len(sides)) if k != number), torch.zeros(len(main)).double())
        found[:, classes] = log_p.double()[:, classes] + others[:, None]
    return found.float()
