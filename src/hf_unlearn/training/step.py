"""One outer step: draws, the method's fast steps, the stock final step, and what a method may use of it."""

from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.func import functional_call

from ..common.losses import global_sum, world_size
from ..common.sharding import gather, local
from ..data.numerics import gradient_norm
from ..families import Baseline
from ..families.base import Objective
from ..methods.base import OWN, Above, Batch, Losses, Method, Samples
from .config import UnlearnConfig
from .directions import conflict
from .draws import Draws
from .guard import DivergenceGuard
from .optim import FastSlow, Length
from .reference import Reference
from .strength import Strength, strength_of


class Step:
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
        self.objective, self.method, self.args = objective, method, args
        objective.still = method.still
        self.draws, self.reference, self.guard, self.accelerator = draws, reference, guard, accelerator
        self.fast_slow: FastSlow | None = None  # from `attach` on
        self.masks: list[Tensor | None] | None = None  # in the order of the optimizer's parameters
        self.optimizer: Any = None  # `fast_slow` as accelerate has wrapped it
        self.model: nn.Module = objective  # the objective as accelerate has wrapped it
        self.strength = strength_of(method)
        self.progress = 0.0
        self.number = 0  # the outer steps already taken
        self._recorded: dict[str, list[Tensor]] = {}
        self._losses: dict[str, Tensor] = {}  # of the present step, for the guard
        self._drawn = (-1, 0)  # (outer step, micro-batch) last drawn for

    def attach(self, fast_slow: FastSlow) -> None:
        """Take the optimizer of the run."""
        self.fast_slow = self.optimizer = fast_slow

    def bind_masks(self) -> None:
        """Bring the masks into the optimizer's order; for sharded weights, once they are sharded."""
        masks = self.reference.masks
        if masks is None:
            return
        trained = [p for p in self.objective.network.parameters() if p.requires_grad]
        by_parameter = {id(p): mask for p, mask in zip(trained, masks.aligned(self.objective.network))}
        self.masks = [by_parameter[id(p)] for p in self.parameters]
        if self.method.masks_every_step:
            self.weights.masks = self.masks

    def scheduler(self, optimizer: Any) -> Any:
        """The scheduler of a run that finds its strength; None for any other, which has the stock one."""
        return None if self.strength is None else self.strength.scheduler(optimizer)

    @property
    def stateful(self) -> list[Strength]:
        """What of it goes into a checkpoint."""
        return [] if self.strength is None else [self.strength]

    @property
    def weights(self) -> FastSlow:
        """The fast and slow weights. Raises RuntimeError before training."""
        if self.fast_slow is None:
            raise RuntimeError("the optimizer is made by train()")
        return self.fast_slow

    @property
    def mask_drift(self) -> float | None:
        """The largest drift of a masked-out weight that was seen; None if nobody looked."""
        looked = self.reference.masks is not None and self.args.verify_mask_steps
        return self.fast_slow.mask_drift if looked and self.fast_slow is not None else None

    @property
    def precision(self) -> str:
        """What a step computes in: fp32, bf16 or fp16."""
        mixed = self.accelerator.mixed_precision
        own = "bf16" if self.objective.dtype == torch.bfloat16 else "fp32"
        return own if mixed == "no" else mixed

    # ---- one outer step ----------------------------------------------------------------------------
    def restart(self) -> None:
        """Forget which batch was drawn last and what strength was found: a new call of `train` begins anew."""
        self._drawn = (-1, 0)
        if self.strength is not None:
            self.strength.restart()

    def begin(self, model: nn.Module, optimizer: Any, inputs: dict[str, Any], number: int, total: int) -> dict:
        """Draw for every part of the batch and take the method's fast steps; return the batch of the final step.

        Args:
            model, optimizer: as accelerate has wrapped them.
            number, total: outer steps already taken, and those of the run.
        """
        self.model, self.optimizer, self.number, self.progress = model, optimizer, number, number / max(total, 1)
        generator = self.draws.generator("train", self._batch_number(number))
        batch: dict[str, Any] = {}
        if "forget" in inputs:
            batch["forget"] = self.draws.add(inputs["forget"], generator, forget=True)
        if "retain" in inputs:
            batch["retain"] = [self.draws.add(part, generator, forget=False) for part in inputs["retain"]]
            self.guard.expect_retain(lambda: self.losses(batch["retain"][0]).mean())
        self.guard.batch = batch
        self.weights.begin()
        if self.strength is not None:
            self.strength.begin(number, total)
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
        if self.strength is not None and losses.retain is not None:
            self.strength.measure_retain(global_sum(losses.retain).item() / world_size())
        for name, value in losses.logged.items():
            self._recorded.setdefault(name, []).append(value)
        return losses

    def logged(self) -> dict[str, float]:
        """The means, over steps and processes, of what was recorded since the last call."""
        gather, recorded, self._recorded = self.accelerator.gather, self._recorded, {}
        means = {name: gather(torch.stack(v).mean()).mean().item() for name, v in recorded.items()}
        return means | ({} if self.strength is None else conflict(self.weights.forget, self.weights.base))

    # ---- what a method may use (methods.base.Step) -------------------------------------------------
    @property
    def state(self) -> Any:
        return self.reference.method_state

    @property
    def parameters(self) -> list[Tensor]:
        return self.weights.parameters

    def losses(
        self, batch: Samples, target: Tensor | None = None, shift: list[Tensor] | None = None, **options: Any
    ) -> Tensor:
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

    def _forward(self, **given: Any) -> Tensor:
        return self.model(**given)

    def _under(self, batch: Samples, labels: Tensor | Literal["own"] | None) -> Samples:
        """The same samples under other labels, none of which is dropped."""
        if isinstance(labels, str):
            return batch
        if labels is None:
            labels = self.objective.null_labels(batch)
        return {**{k: v for k, v in batch.items() if k != "drop_labels"}, "labels": labels}

    def unseen(self, batch: Samples) -> tuple[Tensor, Tensor]:
        return self.objective.unseen_target(batch, self.original(batch), self.state)

    def fast_step(
        self,
        loss: Tensor,
        forget: bool,
        max_norm: float | None = None,
        scale: float = 1.0,
        above: Above | None = None,
    ) -> None:
        self.accelerator.backward(loss)
        self.accelerator.unscale_gradients()
        parameters = self.parameters
        masks, hard = (self.masks, self.method.optimizer.hard_mask) if forget else (None, False)
        if masks is not None and not hard:  # as released code: the mask acts on the gradient that is then clipped
            _mask_gradients(parameters, masks)
        norm = max_norm if forget else (self.args.max_grad_norm or None)
        size = gradient_norm(parameters) if norm is None else gather(nn.utils.clip_grad_norm_(parameters, norm))
        self.guard.check("forget_loss" if forget else "retain_loss", loss, size)
        if masks is not None and hard:
            _mask_gradients(parameters, masks)
        if forget:
            every = self.args.verify_mask_steps
            verify = bool(every) and self.number % every == 0
            clipped = 1.0 if norm is None else min(1.0, norm / (size.item() + 1e-6))
            with self.weights.forget_phase(masks, scale, hard, verify, self._length(above, clipped)):
                self.optimizer.step()
            if self.strength is not None:
                self.weights.set_rate(self.strength.rate)
        else:
            self.optimizer.step()
        self.weights.zero_grad()

    def _length(self, above: Above | None, clipped: float) -> Length | None:
        """How far a forget step goes whose loss lies so far above its end; None: as its learning rate says.

        Args:
            above: see `fast_step`.
            clipped: the factor by which the gradient was shortened.
        """
        strength = self.strength
        if strength is None or above is None:
            return None
        strength.measure(*(global_sum(torch.stack(above).float()) / world_size()).tolist())
        for name, value in strength.logged.items():
            self._recorded.setdefault(name, []).append(torch.tensor(value, device=self.args.device))
        return lambda slope, *sizes: strength.length(slope / clipped, *sizes)


def _inputs(batch: Samples) -> Samples:
    """What the network takes: `index`, the position of a forget sample, is for anchors; no loss depends on it."""
    return {k: v for k, v in batch.items() if k != "index"}


def _mask_gradients(parameters: list[Tensor], masks: list[Tensor | None]) -> None:
    """Set the gradients outside the masks to 0, in place."""
    both = [(local(p.grad), m) for p, m in zip(parameters, masks) if p.grad is not None and m is not None]
    # By bytes it takes half of what bools take.
    torch._foreach_mul_([gradient for gradient, _ in both], [mask.view(torch.uint8) for _, mask in both])
