"""One outer step: draws, the method's fast steps, the stock final step, and what a method may use of it.

Everything random is drawn from (seed, step), so that workers, processes and resumed runs see the same numbers.
"""

from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import TrainerState

from ..common.sharding import local, whole
from ..data.numerics import gradient_norm
from ..data.protocols import SizedDataset
from ..families import Baseline, Objective
from ..methods.base import OWN, Batch, Losses, Method, RetainData, Samples
from .config import UnlearnConfig
from .evaluator import ForgetRetainEvaluation
from .guard import DivergenceGuard
from .optim import FastSlow

SALTS = {"train": 1, "eval": 2, "profile": 3}  # what draws are for


class Running(Protocol):
    """What a step reads of the trainer. All but the first four change during a run."""

    args: UnlearnConfig
    objective: Objective
    guard: DivergenceGuard
    accelerator: Any
    state: TrainerState
    optimizer: torch.optim.Optimizer
    fast_slow: FastSlow | None
    original: nn.Module | None
    profile: Tensor | None

    def _prepare_input(self, data: Any) -> Any:
        """transformers' way of putting tensors on the device."""


class OuterStep:
    """The part of the trainer that takes steps; it implements `methods.base.Step`.

    Args:
        trainer: what it reads of the run.
        method: resolved for the trainer's objective.

    Attributes:
        state: what `method.begin` returned.
        masks: aligned with the trained weights, on their device, once there is an optimizer.
        wrapped: the objective as accelerate wrapped it.
    """

    def __init__(self, trainer: Running, method: Method):
        self.trainer, self.method = trainer, method
        self.state: Any = None
        self.masks: list[Tensor] | None = None
        self.wrapped: nn.Module = trainer.objective
        self._micro_step = (-1, 0)  # (outer step, micro-batch) last drawn for
        self._recorded: dict[str, list[Tensor]] = {}
        self._losses: dict[str, Tensor] = {}  # of the present step, for the guard

    # ---- a step, from the batch to the loss --------------------------------------------------------
    def begin_run(self, forget: SizedDataset, retain: RetainData) -> None:
        """Have the method keep what it needs of the original. A second run goes on with what the first one kept."""
        if self.state is None:
            seed = self.trainer.args.draws_seed
            self.state = self.method.begin(self.trainer.objective, forget, retain, seed)

    def restart(self) -> None:
        """Draw anew for the first micro-batch: called where a run begins or goes on."""
        self._micro_step = (-1, 0)

    def begin(self, model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
        """Draw for every part of the batch and take the method's fast steps. Returns the batch of the final step."""
        trainer, done = self.trainer, self.trainer.state.global_step
        self.wrapped = model
        model.train()
        generator = self.generator("train", self._micro_batch(done))
        batch: dict[str, Any] = {}
        if "forget" in inputs:
            batch["forget"] = self.with_draws(inputs["forget"], generator, forget=True)
        if "retain" in inputs:
            batch["retain"] = [self.with_draws(part, generator, forget=False) for part in inputs["retain"]]
            trainer.guard.expect(batch["retain"][0])
        trainer.guard.batch = batch
        self._fast_slow.begin()
        self._losses = {}
        found = self.method.before_step(self, Batch(**batch))
        if found is not None:
            self._take("before_step", found)
        return batch

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """The scalar of the final step, which is differentiated."""
        losses = self.method.loss(self, Batch(**batch))
        return self._take("loss", losses).scalar

    def end(self, loss: Tensor) -> None:
        """Have the guard look at what the step returned, whatever the method made of its losses."""
        guard = self.trainer.guard
        guard.check("loss", loss, gradient_norm(self.parameters))
        if "retain_loss" in self._losses:
            guard.check_retain(self._losses["retain_loss"])
        elif "forget_loss" in self._losses:
            guard.check_forget(self._losses["forget_loss"])
        else:
            guard.check_forget(loss.detach(), "loss")

    def averages(self) -> dict[str, float]:
        """Mean over steps and processes of all that was recorded since the last call."""
        recorded, self._recorded = self._recorded, {}
        gather = self.trainer.accelerator.gather
        return {name: gather(torch.stack(values).mean()).mean().item() for name, values in recorded.items()}

    def _micro_batch(self, done: int) -> int:
        """The number of this micro-batch since the start of the run."""
        accumulated = self.trainer.args.gradient_accumulation_steps
        step, micro = self._micro_step
        micro = micro + 1 if step == done and accumulated > 1 else 0
        self._micro_step = (done, micro)
        return done * accumulated + micro

    def _take(self, source: str, losses: Losses) -> Losses:
        """Record what the method returned."""
        if not isinstance(losses, Losses):
            name = f"{type(self.method).__name__}.{source}"
            raise TypeError(f"{name} returned {type(losses).__name__}: return Losses(forget=..., retain=...)")
        self._losses |= losses.logged
        for name, value in losses.logged.items():
            self._recorded.setdefault(name, []).append(value)
        return losses

    # ---- draws -------------------------------------------------------------------------------------
    def generator(self, purpose: str, number: int) -> torch.Generator:
        """A generator for the draws of one batch."""
        return torch.Generator().manual_seed((self.trainer.args.draws_seed * 4 + SALTS[purpose]) * 1_000_003 + number)

    def with_draws(self, batch: Samples, generator: torch.Generator, forget: bool, split: bool = True) -> Samples:
        """The batch with everything random drawn, on the device. `split`: this process's part of a global batch."""
        args, objective = self.trainer.args, self.trainer.objective
        rank, world = (args.process_index, args.world_size) if split else (0, 1)
        draws = objective.draw(batch, generator, rank, world)
        draws = objective.forget_draw(draws) if forget else draws
        return self.trainer._prepare_input({**batch, **draws})

    # ---- what a method may use (methods.base.Step) -------------------------------------------------
    @property
    def progress(self) -> float:
        return self.trainer.state.global_step / max(self.trainer.state.max_steps, 1)

    @property
    def parameters(self) -> list[Tensor]:
        return self._fast_slow.parameters

    @property
    def _fast_slow(self) -> FastSlow:
        assert self.trainer.fast_slow is not None, "there is no optimizer yet"
        return self.trainer.fast_slow

    def losses(
        self, batch: Samples, target: Tensor | None = None, shift: list[Tensor] | None = None, **options: Any
    ) -> Tensor:
        given = {**_inputs(batch), **options}
        if target is not None:
            given["target"] = target
        if shift is None:
            return self._forward(**given)
        objective = self.trainer.objective
        names = {id(p): name for name, p in objective.named_parameters()}
        weights = {names[id(p)]: p - s for p, s in zip(self.parameters, shift, strict=True)}
        return functional_call(objective, weights, kwargs=given)

    def predict(
        self, batch: Samples, labels: Tensor | Literal["own"] | None = OWN, network: nn.Module | None = None
    ) -> Tensor:
        batch = self._under(batch, labels)
        if network is not None:
            with self.trainer.accelerator.autocast():
                return self.trainer.objective.predict(network, batch)
        with torch.no_grad():  # through the wrapper, which alone may hold whole weights
            return self._forward(**_inputs(batch), predict=True)

    def original(self, batch: Samples, labels: Tensor | Literal["own"] | None = OWN) -> Tensor:
        return self.predict(batch, labels, self._original)

    def original_gradient(self, batch: Samples) -> Tensor:
        with self.trainer.accelerator.autocast():
            return self.trainer.objective.input_gradient(self._original, batch)

    @property
    def _original(self) -> nn.Module:
        if self.trainer.original is None:
            raise ValueError(f"{self.method.name} uses the original: set needs_original = True on its class")
        return self.trainer.original

    def anchor_labels(self, batch: Samples) -> Tensor:
        return self.trainer.objective.other_labels(batch)

    def anchor(self, batch: Samples) -> Tensor:
        labels = self.anchor_labels(batch)
        return labels if self.trainer.objective.labels_are_targets else self.predict(batch, labels)

    def baseline(self, batch: Samples) -> Baseline:
        if self.trainer.profile is None:
            raise ValueError(f"{self.method.name} uses the baseline: set needs_baseline = True on its class")
        return self.trainer.objective.baseline(self.trainer.profile, batch)

    def fast_step(self, loss: Tensor, forget: bool, max_norm: float | None = None, scale: float = 1.0) -> None:
        trainer, fast_slow = self.trainer, self._fast_slow
        trainer.accelerator.backward(loss)
        trainer.accelerator.unscale_gradients()
        parameters = fast_slow.parameters
        masks, hard = (self.masks, self.method.optimizer.hard_mask) if forget else (None, False)
        if masks is not None and not hard:  # as released code: the mask acts on the gradient that is then clipped
            _mask_gradients(parameters, masks)
        norm = max_norm if forget else (trainer.args.max_grad_norm or None)
        size = gradient_norm(parameters) if norm is None else whole(nn.utils.clip_grad_norm_(parameters, norm))
        trainer.guard.check("forget_loss" if forget else "retain_loss", loss, size)
        if masks is not None and hard:
            _mask_gradients(parameters, masks)
        if forget:
            every = trainer.args.verify_mask_steps
            verify = bool(every) and trainer.state.global_step % every == 0
            with fast_slow.forget_phase(None if masks is None else [*masks], scale, hard, verify):
                trainer.optimizer.step()
        else:
            trainer.optimizer.step()
        fast_slow.zero_grad()

    def _forward(self, **given: Any) -> Tensor:
        return self.wrapped(**given)

    def _under(self, batch: Samples, labels: Tensor | Literal["own"] | None) -> Samples:
        """The same samples under other labels, none of which is dropped."""
        if isinstance(labels, str):
            return batch
        if labels is None:
            labels = self.trainer.objective.null_labels(batch)
        return {**{k: v for k, v in batch.items() if k != "drop_labels"}, "labels": labels}


class SteppingTrainer(ForgetRetainEvaluation):
    """transformers' hooks around a step, for UnlearnTrainer, whose attribute `step` they call."""

    step: OuterStep
    early_stop: Any

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Draws for every part of the batch, the method's fast steps, then the stock step (forward and backward)."""
        batch = self.step.begin(model, self._prepare_inputs(inputs))
        loss = super().training_step(model, batch, num_items_in_batch)
        self.step.end(loss)
        return loss

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list, Any]:
        """No batch once all steps are taken: resumed from the last checkpoint, stock Trainer would take one more."""
        if self.state.global_step >= self.state.max_steps or self.early_stop.reached:
            return [], None
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss = self.step.loss(inputs)
        return (loss, None) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(self.step.averages())
        super().log(logs, start_time)


def _inputs(batch: Samples) -> Samples:
    """What the network takes: `index`, the position of a forget sample, is for anchors; no loss depends on it."""
    return {k: v for k, v in batch.items() if k != "index"}


def _mask_gradients(parameters: list[Tensor], masks: list[Tensor]) -> None:
    pairs = [(local(p.grad), m.view(torch.uint8)) for p, m in zip(parameters, masks) if p.grad is not None]
    torch._foreach_mul_([g for g, _ in pairs], [m for _, m in pairs])  # by bytes it takes half of what bools take
