"""Baselines that distil from the model as it was before a request: LwF and UniCLUN."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import ClassVar

from torch import nn

from ..data.protocols import SizedDataset
from ..families import Objective
from ..methods import FineTune
from ..methods.base import Batch, Losses, Method, RetainData, Step, flag
from .replay import new_and_known
from .strategies import Strategy, need
from .turns import Turn

GONE = -30.0  # a logit that stands for the probability 0


@dataclass(frozen=True)
class LwF(Method):
    """Learning without forgetting (Li & Hoiem, arXiv 1606.09282) on new samples x, which are the retain set here:

    L = mean l(x) + a mean T² KL(previous(x) || θ(x)),   temperature T
    """

    name: ClassVar[str] = "lwf"
    paper: ClassVar[str] = "1606.09282"
    streams: ClassVar[tuple[str, ...]] = ("retain",)
    needs_original: ClassVar[bool] = True
    distill_weight: float = flag(1.0, "Weight a of the distillation.")
    temperature: float = flag(2.0, "Temperature T of the distillation.")

    def loss(self, step: Step, batch: Batch) -> Losses:
        new = batch.retain[0]
        own = step.losses(new).mean()
        held = step.losses(new, target=step.original(new), temperature=self.temperature).mean()
        return Losses(retain=own, total=own + self.distill_weight * held)


@dataclass(frozen=True)
class LwFUnlearning(Method):
    """The same idea for samples to forget; ours, as the paper only learns:

        L = mean T² KL(without label || θ) on forget + mean T² KL(previous || θ) on the memory

    "without label" is what the previous model says of a sample when its own label is struck out.
    """

    name: ClassVar[str] = "lwf_unlearning"
    paper: ClassVar[str] = "1606.09282"
    needs_original: ClassVar[bool] = True
    temperature: float = flag(2.0, "Temperature T of both distillations.")

    def loss(self, step: Step, batch: Batch) -> Losses:
        forget, known = batch.forget, batch.retain[0]
        without = step.original(forget).scatter(1, forget["labels"][:, None], GONE)
        gone = step.losses(forget, target=without, temperature=self.temperature).mean()
        held = step.losses(known, target=step.original(known), temperature=self.temperature).mean()
        return Losses(forget=gone, retain=held)


@dataclass(frozen=True)
class UniCLUN(Method):
    """One loss for learning and unlearning, after UniCLUN (arXiv 2408.11374):

        L = γ L_cl + (1 - γ) L_cu
        L_cl = mean l on new + mean l on the memory + mean KL(previous || θ) on the memory
        L_cu = mean KL(bad teacher || θ) on forget samples, the bad teacher an untrained network

    The weighted sum, the replay and the bad teacher are the paper's; how L_cl divides is derived. Where there is
    nothing to learn or to forget, that term is 0.
    """

    name: ClassVar[str] = "uniclun"
    paper: ClassVar[str] = "2408.11374"
    streams: ClassVar[tuple[str, ...]] = ("forget", "retain")
    learns: ClassVar[bool] = True
    needs_original: ClassVar[bool] = True
    family: ClassVar[str] = "classifier"
    balance: float = flag(0.5, "Weight γ of learning.")

    def for_data(self, names: Collection[str]) -> Method:
        if "forget" in names or isinstance(self, UniCLUNLearning):
            return super().for_data(names)
        return UniCLUNLearning(**{f.name: getattr(self, f.name) for f in fields(self)}).for_data(names)

    def begin(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> nn.Module:
        """The bad teacher."""
        return objective.fresh_network(0).requires_grad_(False)

    def loss(self, step: Step, batch: Batch) -> Losses:
        known = batch.retain[0]
        held = step.losses(known, target=step.original(known)).mean()
        if batch.learn:
            losses, is_new = new_and_known(step, batch)
            own = losses[is_new].mean() + losses[~is_new].mean()
        else:
            own = step.losses(known).mean()
        total, gone = self.balance * (own + held), None
        if batch.forget:
            bad = step.predict(batch.forget, network=step.state)
            gone = step.losses(batch.forget, target=bad).mean()
            total = total + (1 - self.balance) * gone
        return Losses(forget=gone, retain=own + held, total=total)


@dataclass(frozen=True)
class UniCLUNLearning(UniCLUN):
    """UniCLUN of a run that has nothing to forget."""

    streams: ClassVar[tuple[str, ...]] = ("retain",)


@dataclass(frozen=True)
class Distilling(Strategy):
    """LwF: new samples are learnt without a memory; what is to be forgotten is distilled away, with one."""

    name: ClassVar[str] = "lwf"

    def learn(self, turn: Turn, new: SizedDataset) -> None:
        turn.train("learn", LwF() if turn.before.known else FineTune(), retain=new, rate=self.rate(turn))

    def forget(self, turn: Turn, gone: SizedDataset) -> None:
        turn.train("forget", LwFUnlearning(), gone, need(turn), rate=self.rate(turn))


@dataclass(frozen=True)
class Unified(Strategy):
    """UniCLUN: one training a request, with one loss."""

    name: ClassVar[str] = "uniclun"

    def carry_out(self, turn: Turn) -> None:
        self.at_once(turn, "uniclun", UniCLUN(), rate=self.rate(turn))
