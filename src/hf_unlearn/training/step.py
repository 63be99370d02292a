"""One outer step: draws, the method's fast steps, the stock final step, and what a method may use of it.

Everything random is drawn from (seed, step), so that workers, processes and resumed runs see the same numbers.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..common.sharding import gather, local
from ..data.numerics import gradient_norm
from ..families import Baseline
from .evaluator import ForgetRetainEvaluation


class OuterStep(ForgetRetainEvaluation):
    """The stepping half of UnlearnTrainer; it implements `methods.base.Loop`."""

    _micro_step = (-1, 0)  # (outer step, micro-batch) last drawn for
    _step_masks: list[Tensor] | None = None

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Draws for every part of the batch, the method's fast steps, then the stock step (forward and backward)."""
        self._wrapped = model
        model.train()
        step, micro = self._micro_step
        micro = micro + 1 if step == self.state.global_step and self.args.gradient_accumulation_steps > 1 else 0
        self._micro_step = (self.state.global_step, micro)
        number = self.state.global_step * self.args.gradient_accumulation_steps + micro
        generator = self._generator("train", number)
        inputs = self._prepare_inputs(inputs)
        batch: dict[str, Any] = {}
        if "forget" in inputs:
            batch["forget"] = self._with_draws(inputs["forget"], generator, forget=True)
        if "retain" in inputs:
            batch["retain"] = [self._with_draws(part, generator, forget=False) for part in inputs["retain"]]
            self.guard.expect(batch["retain"][0])
        self.guard.batch = batch
        self.fast_slow.begin()
        self.method.before_step(self, batch)
        loss = super().training_step(model, batch, num_items_in_batch)
        self.guard.check("loss", loss, gradient_norm(self.fast_slow.parameters))
        if "retain_loss" in self._recorded:
            self.guard.check_retain(self._recorded["retain_loss"][-1])
        elif "forget_loss" in self._recorded:
            self.guard.check_forget(self._recorded["forget_loss"][-1])
        return loss

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list, Any]:
        """No batch once all steps are taken: resumed from the last checkpoint, stock Trainer would take one more."""
        if self.state.global_step >= self.state.max_steps or self.early_stop.reached:
            return [], None
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any):
        loss = self.method.loss(self, inputs)
        return (loss, None) if return_outputs else loss

    def _generator(self, purpose: str, number: int) -> torch.Generator:
        salt = {"train": 1, "eval": 2, "profile": 3}[purpose]
        return torch.Generator().manual_seed((self.args.draws_seed * 4 + salt) * 1_000_003 + number)

    def _with_draws(
        self, batch: dict[str, Tensor], generator: torch.Generator, forget: bool, split: bool = True
    ) -> dict[str, Tensor]:
        rank, world = (self.args.process_index, self.args.world_size) if split else (0, 1)
        draws = self.objective.draw(batch, generator, rank, world)
        draws = self.objective.forget_draw(draws) if forget else draws
        return self._prepare_input({**batch, **draws})

    # ---- what a method may use (methods.base.Loop) -----------------------------------------------
    @property
    def progress(self) -> float:
        return self.state.global_step / max(self.state.max_steps, 1)

    @property
    def parameters(self) -> list[Tensor]:
        return self.fast_slow.parameters

    def losses(self, batch: dict[str, Tensor], shift: list[Tensor] | None = None) -> Tensor:
        if shift is None:
            return self._forward(batch)
        names = {id(p): name for name, p in self.objective.named_parameters()}
        weights = {names[id(p)]: p - s for p, s in zip(self.parameters, shift, strict=True)}
        return functional_call(self.objective, weights, kwargs=_inputs(batch))

    def matching_losses(self, batch: dict[str, Tensor], to: str, strength: float = 1.0, **options: Any) -> Tensor:
        with self.accelerator.autocast():
            match = self.objective.match(to, batch, self.original, strength)
        return self._forward(batch, **match, **options)

    def _forward(self, batch: dict[str, Tensor], **extra: Any) -> Tensor:
        return self._wrapped(**_inputs(batch), **extra)

    def baseline(self, batch: dict[str, Tensor]) -> Baseline:
        return self.objective.baseline(self.profile, batch)

    def fast_step(self, loss: Tensor, forget: bool, max_norm: float | None = None, scale: float = 1.0) -> None:
        self.accelerator.backward(loss)
        self.accelerator.unscale_gradients()
        parameters = self.fast_slow.parameters
        masks, hard = (self._step_masks, self.method.optimizer["hard_mask"]) if forget else (None, False)
        if masks is not None and not hard:  # as released code: the mask acts on the gradient that is then clipped
            _mask_gradients(parameters, masks)
        norm = max_norm if forget else (self.args.max_grad_norm or None)
        size = gradient_norm(parameters) if norm is None else gather(nn.utils.clip_grad_norm_(parameters, norm))
        self.guard.check("forget_loss" if forget else "retain_loss", loss, size)
        if masks is not None and hard:
            _mask_gradients(parameters, masks)
        if forget:
            every = self.args.verify_mask_steps
            verify = bool(every) and self.state.global_step % every == 0
            with self.fast_slow.forget_phase(masks, scale, hard, verify):
                self.optimizer.step()
        else:
            self.optimizer.step()
        self.fast_slow.zero_grad()

    def record(self, name: str, value: Tensor) -> None:
        self._recorded.setdefault(name, []).append(value.detach())

    # ---- logs ---------------------------------------------------------------------
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            for name, values in self._recorded.items():
                logs[name] = self.accelerator.gather(torch.stack(values).mean()).mean().item()
            self._recorded = {}
        super().log(logs, start_time)


def _inputs(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the network takes: `index`, the position of a forget sample, is for `match`; no loss depends on it."""
    return {k: v for k, v in batch.items() if k != "index"}


def _mask_gradients(parameters: list[Tensor], masks: list[Tensor]) -> None:
    pairs = [(local(p.grad), m.view(torch.uint8)) for p, m in zip(parameters, masks) if p.grad is not None]
    torch._foreach_mul_([g for g, _ in pairs], [m for _, m in pairs])  # by bytes it takes half of what bools take
