"""A strength that finds itself: how far a forget step goes, from how far its loss still lies above its known end.

A matching loss ends at 0, a bounded ascent at its bound. Let m be how far the batch's loss lies above that end,
measured before the step on fresh noise, and m_0 the same for the original model. Along the direction d of the
optimizer (Adam, masked; the step is -d) the forget step is

    θ <- θ - κ d,   κ = want / <g, d>,   want = gain · c · fade · max(m - m_0 floor / 2, 0)

with g the gradient that was not clipped (Polyak's step length, 1969, along Adam's direction). The plan is exponential:
c = 1 - floor^(1 / (by T)) reaches `floor` times m_0 after the share `by` of T steps. A controller moves `gain` by
(measured / planned)^exponent in each step, and lowers it where the retained side drifts. Retain steps take κ as their
learning rate, or with `equal_steps` what makes them as long as the forget step.

Learn steps have a controller of their own, whose end is the loss that the original has on retained samples. Retained
samples may be as far from the original as learnt ones from that end: its `drift` is its floor. Its retain steps keep
their rate to the last steps, for there is still to repair when little is left to learn. Two controllers begin to fade
together, once both are at their floors, and the retain steps take the larger rate. What learning does to the forgotten
and the retained side does not slow the forget steps; drift slows the learn steps.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..methods.base import Method

SMOOTHING = 5  # steps over which what is measured is averaged: one batch is noisy
MEMORY = 10  # steps over which step lengths are averaged


@dataclass(frozen=True)
class Plan:
    """The constants, the same for every family, method and kind of weights.

    floor: share of the original's distance at which the loss says "forgotten".
    by: share of the steps after which the plan is there.
    hold: share of the steps after which a run that is not there begins to end all the same; one that may be extended
        goes on while it comes closer.
    closer: a run that is extended comes closer if a stretch of `hold` leaves at most this share of the distance.
    gain: the least and the largest.
    exponent: of the controller.
    jump: a step length is at most this many times the running geometric mean.
    drift: the retained side may be this far from the original, in units of the way that the forget side has to go;
        beyond, the gain falls.
    largest_change: a forget step changes the trained weights by at most this share of their norm.
    retain_ratio: learning rate of the retain steps over κ.
    equal_steps: that rate times the root mean square of d, so that a retain step, which Adam makes of nearly the rate
        in every weight, is as long as the forget step.
    holds_rate: the retain steps keep the largest rate so far until the steps fade.
    above: over so many times the original's loss a step was too long. Batches differ, and so do the means of two.
    alone: whether no steps of another kind move the weights: then a loss above the original's says that the steps are
        too long, and the retained side's drift is theirs.
    """

    floor: float = 0.1
    by: float = 1 / 3
    hold: float = 2 / 3
    closer: float = 0.95
    gain: tuple[float, float] = (0.05, 10.0)
    exponent: float = 0.2
    jump: float = 2.0
    drift: float = 0.25
    largest_change: float = 0.02
    retain_ratio: float = 1.0
    equal_steps: bool = False
    holds_rate: bool = False
    above: float = 1.0
    alone: bool = True


def extended(args: Any, strengths: Mapping[str, Any]) -> Any:
    """The arguments with all the steps that a run may be extended to, where it finds the strength of its forget steps;
    else as they are. What only learns is not extended: it would go on with the new and lose the old."""
    if "forget" not in strengths or args.extend_to <= args.max_steps or args.max_steps < 1:
        return args
    longer = copy.copy(args)
    longer.max_steps = args.extend_to
    return longer


def planned_steps(args: Any, total: int) -> int:
    """The outer steps that a run of at most `total` is planned for: fewer where it may be extended."""
    return args.max_steps if 0 < args.max_steps < total else total


def strengths_of(method: Method) -> "dict[str, Strength]":
    """The controllers of a run of `method` by what steps they are for, forget first; none where these have a rate."""
    floors = method.floors if method.finds_strength else {}
    both = "forget" in floors and "learn" in floors
    own: dict[str, Any] = {"equal_steps": True, "above": 1.25} if method.equal_steps else {}
    plans = {
        kind: Plan(floor=floor, drift=floor, holds_rate=True)
        if kind == "learn"
        else Plan(floor=floor, alone=not both, **own)
        for kind, floor in floors.items()
    }
    return {kind: Strength(plan, kind) for kind, plan in plans.items()}


class _Kept(LambdaLR):
    """It says what the rate is now; the stock one says what it was set to itself, a step ago."""

    def get_last_lr(self) -> list[float]:  # type: ignore[override]  # tensors only where a rate is one
        return [group["lr"] for group in self.optimizer.param_groups]


class Strength:
    """The controller of the forget or the learn steps of a run. Its state is JSON, and a resumed run goes on with it.

    Attributes:
        kind: "forget" or "learn".
        rate: learning rate of the retain steps that follow the last forget step.
        level: distance from the end over the original's, averaged over the last steps.
        ending: the outer step in which the steps began to fade; None before.
        reached: whether it began because the floor was reached.
    """

    def __init__(self, plan: Plan | None = None, kind: str = "forget"):
        self.plan, self.kind = plan or Plan(), kind
        self.restart()

    def restart(self) -> None:
        """Know nothing yet, as before the first step."""
        self.gain, self.rate, self.log_mean, self.lengths = 1.0, 0.0, 0.0, 0
        self.peak = 0.0  # of the rate, before it fades
        self.level, self.measured, self.whole, self.unit, self.drift = 1.0, 0, 0.0, 0.0, 0.0
        self.ratio = 1.0
        self.ending: int | None = None
        self.reached = False
        self.mark, self.marked = 0, 1.0  # an outer step, and how far it was from the end then
        self.topped = False  # whether the gain was at its most then
        self._want = 0.0

    @property
    def near(self) -> bool:
        """Whether the floor is reached."""
        return self.measured >= SMOOTHING and self.level <= self.plan.floor

    def begin(self, number: int, total: int, over: bool | None = None, most: int | None = None) -> None:
        """Begin outer step `number`, from 0, of a run that is planned for `total`.

        Args:
            over: whether it is time for the steps of the run to fade; by default whether this controller says so.
            most: the run may be extended to so many steps; by default it may not.
        """
        plan = self.plan
        planned = max(plan.by * total, 1.0)
        self._pace = 1 - plan.floor ** (1 / planned)
        self._planned = plan.floor ** min(number / planned, 1.0)
        if over is None:
            over = self.near or self.late(number, total, most)
        if self.ending is None and over:
            self.ending, self.reached = number, self.level <= plan.floor
        self._fade = 1.0
        if self.ending is not None:
            length = max(self.last(total, most) - self.ending, 1)
            self._fade = (1 + math.cos(math.pi * min((number - self.ending) / length, 1.0))) / 2

    def last(self, total: int, most: int | None = None) -> int:
        """The number of outer steps after which a run that is planned for `total` is over."""
        most = most or total
        if self.ending is None:
            return most
        soon = max(2 * self.ending, self.ending + SMOOTHING)
        return soon if soon <= total else min(most, max(total, round(self.ending / self.plan.hold)))

    def late(self, number: int, total: int, most: int | None = None) -> bool:
        """Whether it is time to end although the floor was not reached: the rest is for the steps to fade, or a
        stretch of those by which the run is extended did not bring it closer. One in which the gain rises to its most
        does not count: what that does is not seen yet."""
        stretch = self.plan.hold * total
        if self.ending is not None or number >= self.plan.hold * (most or total):
            return True
        if number - self.mark < stretch:
            return False
        topped = self.gain >= self.plan.gain[1]
        closer = self.level <= self.plan.closer * self.marked or (topped and not self.topped)
        self.mark, self.marked, self.topped = number, self.level, topped
        return not closer

    def measure(self, distance: float, whole: float, unit: float) -> None:
        """Take in how far the forget loss, and the original's, lie above the end, and the latter in the unit of the
        retain loss."""
        plan = self.plan
        self.measured += 1
        self.whole += (whole - self.whole) / self.measured
        self.unit += (unit - self.unit) / self.measured
        whole = max(self.whole, 1e-12)
        ratio = self.ratio = distance / whole
        self.level += (ratio - self.level) / min(self.measured, SMOOTHING)
        least, most = plan.gain
        behind = max(ratio, plan.floor / 10) / self._planned
        if ratio > plan.above and plan.alone:  # farther than the original was: the steps are too long
            behind = 1 / ratio
        if self.drift > plan.drift and plan.alone:
            behind = min(behind, plan.drift / self.drift)
        self.gain = min(max(self.gain * behind**plan.exponent, least), most)
        self._want = self.gain * self._pace * max(distance - whole * plan.floor / 2, 0.0)

    def measure_retain(self, loss: float) -> None:
        """Take in a retain loss that is 0 for the original."""
        self.drift += (loss / max(self.unit, 1e-12) - self.drift) / SMOOTHING

    @property
    def logged(self) -> dict[str, float]:
        """Numbers for the log."""
        own = {f"{self.kind}_distance": self.ratio, f"{self.kind}_gain": self.gain}
        return own if self.kind == "learn" else {**own, "retain_drift": self.drift}

    def length(self, slope: float, direction: float, weights: float, number: int = 1) -> float:
        """κ of the step θ - κ d.

        Args:
            slope: <g, d>, the loss that a step of length 1 takes off, to first order.
            direction, weights: norms of d and of the trained weights.
            number: of the trained weights.
        """
        plan = self.plan
        mean = math.exp(self.log_mean) if self.lengths else math.inf
        kappa = self._want / slope if slope > 0 else (mean if self.lengths else 0.0)
        kappa = min(kappa, plan.jump * mean)
        if direction > 0 and weights > 0:
            kappa = min(kappa, plan.largest_change * weights / direction)
        if kappa > 0:
            self.lengths += 1
            self.log_mean += (math.log(kappa) - self.log_mean) / min(self.lengths, MEMORY)
        as_rate = plan.retain_ratio * (direction / math.sqrt(number) if plan.equal_steps else 1.0)
        self.peak = max(self.peak, kappa * as_rate)
        kappa *= self._fade
        self.rate = self.peak * self._fade if plan.holds_rate else kappa * as_rate
        return kappa

    def scheduler(self, optimizer: Optimizer) -> LambdaLR:
        """A scheduler that says and keeps the rate as it is."""
        first = [group.setdefault("initial_lr", group["lr"]) or 1.0 for group in optimizer.param_groups]
        return _Kept(optimizer, [partial(self._factor, rate) for rate in first])

    def _factor(self, rate: float, step: int) -> float:
        return self.rate / rate

    @property
    def _key(self) -> str:
        return "strength" if self.kind == "forget" else f"{self.kind}_strength"

    def state_dict(self) -> dict[str, Any]:
        names = (
            "gain",
            "rate",
            "log_mean",
            "lengths",
            "level",
            "measured",
            "whole",
            "unit",
            "drift",
            "ending",
            "reached",
            "mark",
            "marked",
            "topped",
        )
        more = ("peak",) if self.plan.holds_rate else ()
        return {self._key: {name: getattr(self, name) for name in (*names, *more)}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state[self._key].items():
            setattr(self, name, value)
