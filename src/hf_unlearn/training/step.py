"""One outer step: draws, the method's fast steps, the stock final step, and what a method may use of it."""

from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.func import functional_call

from ..common.losses import global_sum, world_size
from ..common.precisions import precision_name
from ..data.numerics import gradient_norm
from ..families import Baseline
from ..families.base import Objective
from ..methods.base import OWN, Batch, Losses, Method, Samples
from ..methods.parts import Hardest
from .adversary import adversary_of
from .config import UnlearnConfig
from .directions import conflict
from .draws import Draws
from .fast_steps import FastSteps
from .guard import DivergenceGuard
from .reference import Reference
from .strength import planned_steps


class Step(FastSteps):
    """The part of the trainer that methods see; it implements `methods.base.Step`.

    Args:
        objective, args: of the run.
        method: resolved for the objective.
        draws: they make what is random in a batch.
        reference: the original model, its masks and losses.
        guard: it checks every loss and gradient.
    """

    def __init__(
        self,
        objective: Objective,
        method: Method,
        args: UnlearnConfig,
        draws: Draws,
        reference: Reference,
        guard: DivergenceGuard,
        accelerator: Accelerator,
    ):
        super().__init__(objective, method, args, reference, guard, accelerator)
        objective.still = method.still
        self.draws = draws
        self.adversary = adversary_of(objective, method, args, draws)
        self.model: nn.Module = objective  # the objective as accelerate has wrapped it
        self.progress = 0.0
        self._losses: dict[str, Tensor] = {}  # of the present step, for the guard
        self._drawn = (-1, 0)  # (outer step, micro-batch) last drawn for

    @property
    def precision(self) -> str:
        """What a step computes in: fp32, bf16 or fp16."""
        mixed = self.accelerator.mixed_precision
        own = precision_name(self.objective.network)
        return own if mixed == "no" else mixed

    # ---- one outer step ----------------------------------------------------------------------------
    def restart(self) -> None:
        """Forget which batch was drawn last and what strength was found: a new call of `train` begins anew."""
        self._drawn = (-1, 0)
        for strength in self.strengths.values():
            strength.restart()
        if self.adversary is not None:
            self.adversary.restart()

    @property
    def stateful(self) -> list[Any]:
        return [*super().stateful, *([] if self.adversary is None else [self.adversary])]

    def begin(self, model: nn.Module, optimizer: Any, inputs: dict[str, Any], number: int, total: int) -> dict:
        """Draw for every part of the batch and take the method's fast steps; return the batch of the final step.

        Args:
            model, optimizer: as accelerate has wrapped them.
            number, total: outer steps already taken, and those of the run at most.
        """
        self.model, self.optimizer, self.number, self.progress = model, optimizer, number, number / max(total, 1)
        generator = self.draws.generator("train", self._batch_number(number))
        batch: dict[str, Any] = {}
        if "forget" in inputs:
            batch["forget"] = self.draws.add(inputs["forget"], generator, forget=True)
        if "learn" in inputs:  # without label dropout: what the null label draws stays as it was
            batch["learn"] = [self.draws.add(part, generator, forget=True) for part in inputs["learn"]]
        if "retain" in inputs:
            batch["retain"] = [self.draws.add(part, generator, forget=False) for part in inputs["retain"]]
            self.guard.expect_retain(lambda: self.losses(batch["retain"][0]).mean())
        self.guard.batch = batch
        self.weights.begin()
        if (leading := self.strength) is not None:  # they fade together: once all are near, or the leading one is late
            length = planned_steps(self.args, total)
            over = all(strength.near for strength in self.strengths.values()) or leading.late(number, length, total)
            for strength in self.strengths.values():
                strength.begin(number, length, over, total)
        self._losses = {}
        if (found := self.method.before_step(self, Batch(**batch))) is not None:
            self._take("before_step", found)
        return batch

    def _batch_number(self, number: int) -> int:
        """The number of the micro-batch since the start of the run."""
        step, micro = self._drawn
        accumulated = self.args.gradient_accumulation_steps
        micro = micro + 1 if step == number and accumulated > 1 else 0
        self._drawn = (number, micro)
        return number * accumulated + micro

    def final_loss(self, batch: dict[str, Any]) -> Tensor:
        """The scalar of the final step, which is differentiated."""
        return self._take("loss", self.method.loss(self, Batch(**batch))).scalar

    def end(self, loss: Tensor) -> None:
        """Have the guard look at what the step returned, whatever the method made of its losses."""
        self.guard.check("loss", loss, gradient_norm(self.parameters))
        if "retain_loss" in self._losses:
            self.guard.check_retain(self._losses["retain_loss"])
        elif "forget_loss" in self._losses:
            self.guard.check_forget(self._losses["forget_loss"])
        else:
            self.guard.check_forget(loss.detach(), "loss")

    def _take(self, source: str, losses: Losses) -> Losses:
        """Record what the method returned."""
        if not isinstance(losses, Losses):
            name = f"{type(self.method).__name__}.{source}"
            raise TypeError(f"{name} returned {type(losses).__name__}: return Losses(forget=..., retain=...)")
        self._losses |= losses.logged
        if losses.retain is not None and self.strengths:
            drift = global_sum(losses.retain).item() / world_size()
            for strength in self.strengths.values():
                strength.measure_retain(drift)
        for name, value in losses.logged.items():
            self._recorded.setdefault(name, []).append(value)
        return losses

    def logged(self) -> dict[str, float]:
        """The means, over steps and processes, of what was recorded since the last call."""
        gather, recorded, self._recorded = self.accelerator.gather, self._recorded, {}
        means = {name: gather(torch.stack(v).mean()).mean().item() for name, v in recorded.items()}
        return means | ({} if "forget" not in self.strengths else conflict(self.weights.forget, self.weights.base))

    # ---- what a method may use (methods.base.Step) -------------------------------------------------
    @property
    def state(self) -> Any:
        return self.reference.method_state

    def losses(
        self,
        batch: Samples,
        target: Tensor | None = None,
        shift: list[Tensor] | None = None,
        under: list[Tensor] | None = None,
        **options: Any,
    ) -> Tensor:
        if under is not None:
            with self.objective.shifted(under):  # type: ignore[operator]  # of an objective with conditions
                return self.losses(batch, target, shift, **options)
        given = {**_inputs(batch), **options}
        if target is not None:
            given["target"] = target
        if shift is None:
            return self._forward(**given)
        names = {id(p): name for name, p in self.objective.named_parameters()}
        weights = {names[id(p)]: p - s for p, s in zip(self.parameters, shift, strict=True)}
        with self.objective.keeping_activations():  # the backward would compute them from the weights not shifted
            return functional_call(self.objective, weights, kwargs=given)

    def predict(
        self, batch: Samples, labels: Tensor | Literal["own"] | None = OWN, network: nn.Module | None = None
    ) -> Tensor:
        batch = self._under(batch, labels)
        if network is not None:
            with self.accelerator.autocast():
                return self.objective.predict(network, batch)
        with torch.no_grad():  # through the wrapper, which alone may hold whole weights
            return self._forward(**_inputs(batch), predict=True)

    def original(self, batch: Samples, labels: Tensor | Literal["own"] | None = OWN) -> Tensor:
        held = getattr(self.objective, "held", None)
        if held is not None and isinstance(labels, str):
            with self.accelerator.autocast():
                return held.predict(self.objective, _inputs(batch))
        return self.predict(batch, labels, self._original)

    def original_gradient(self, batch: Samples) -> Tensor:
        with self.accelerator.autocast():
            return self.objective.input_gradient(self._original, batch)

    @property
    def _original(self) -> nn.Module:
        if self.reference.original is None:
            raise ValueError(f"{self.method.name} uses the original: set needs_original = True on its class")
        return self.reference.original

    def anchor_labels(self, batch: Samples) -> Tensor:
        return self.objective.other_labels(batch)

    def anchor(self, batch: Samples) -> Tensor:
        labels = self.anchor_labels(batch)
        return labels if self.objective.labels_are_targets else self.predict(batch, labels)

    def baseline(self, batch: Samples) -> Baseline:
        return self.reference.baseline(batch)

    def levels(self, batch: Samples) -> tuple[Tensor, Tensor]:
        return self.reference.levels(batch)

    def _forward(self, **given: Any) -> Tensor:
        return self.model(**given)

    def _under(self, batch: Samples, labels: Tensor | Literal["own"] | None) -> Samples:
        """The same samples under other labels, none of which is dropped."""
        if isinstance(labels, str):
            return batch
        if labels is None:
            labels = self.objective.null_labels(batch)
        return {**{k: v for k, v in batch.items() if k != "drop_labels"}, "labels": labels}

    def hardest(self, batch: Samples) -> Hardest:
        if self.adversary is None:
            raise ValueError(f"{self.method.name} has no adversary: set adversary = True on it")
        return self.adversary.learn(self, batch)

    def unseen(self, batch: Samples) -> tuple[Tensor, Tensor]:
        return self.objective.unseen_target(batch, self.original(batch), self.state)


def _inputs(batch: Samples) -> Samples:
    """What the network takes: `index`, the position of a forget sample, is for anchors; no loss depends on it."""
    return {k: v for k, v in batch.items() if k != "index"}
