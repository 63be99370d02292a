"""The optimizers' side of an outer step: backward, clip, mask and step, and how far."""

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..common.losses import global_sum, world_size
from ..common.sharding import gather, local
from ..data.numerics import gradient_norm
from ..families.base import Objective
from ..methods.base import Above, Method
from .compact import CompactAdamW
from .config import UnlearnConfig
from .guard import DivergenceGuard
from .optim import FastSlow, Length
from .reference import Reference
from .strength import Strength, strengths_of


class FastSteps:
    """The optimizer steps that a method takes, and what they need. `training.step.Step` adds what it sees besides.

    Attributes:
        strengths: the controllers of a run without a learning rate, by what steps they are for.
    """

    def __init__(
        self,
        objective: Objective,
        method: Method,
        args: UnlearnConfig,
        reference: Reference,
        guard: DivergenceGuard,
        accelerator: Accelerator,
    ):
        self.objective, self.method, self.args = objective, method, args
        self.reference, self.guard, self.accelerator = reference, guard, accelerator
        self.fast_slow: FastSlow | None = None  # from `attach` on
        self.masks: list[Tensor | None] | None = None  # in the order of the optimizer's parameters
        self.optimizer: Any = None  # `fast_slow` as accelerate has wrapped it
        self.strengths = strengths_of(method)
        self.number = 0  # the outer steps already taken
        self._recorded: dict[str, list[Tensor]] = {}

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
        for _, optimizer in self.weights.parts():
            if isinstance(optimizer, CompactAdamW):
                optimizer.bind(self.masks)
        if self.method.masks_every_step:
            self.weights.masks = self.masks

    def scheduler(self, optimizer: Any) -> Any:
        """The scheduler of a run that finds its strength; None for any other, which has the stock one."""
        return None if self.strength is None else self.strength.scheduler(optimizer)

    @property
    def strength(self) -> Strength | None:
        """The controller that the run ends by: of the forget steps, or where there are none of the learn steps."""
        return next(iter(self.strengths.values()), None)

    @property
    def stateful(self) -> list[Strength]:
        """What of it goes into a checkpoint."""
        return list(self.strengths.values())

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
    def parameters(self) -> list[Tensor]:
        return self.weights.parameters

    def fast_step(
        self,
        loss: Tensor,
        forget: bool,
        max_norm: float | None = None,
        scale: float = 1.0,
        above: Above | None = None,
    ) -> None:
        self._step("forget" if forget else "retain", loss, max_norm, scale, above)

    def learn_step(self, loss: Tensor, max_norm: float | None = None, above: Above | None = None) -> None:
        self._step("learn", loss, max_norm, 1.0, above)

    def _step(self, kind: str, loss: Tensor, max_norm: float | None, scale: float, above: Above | None) -> None:
        self.accelerator.backward(loss)
        self.accelerator.unscale_gradients()
        parameters, changes = self.parameters, kind != "retain"
        masks, hard = (self.masks, self.method.optimizer.hard_mask) if changes else (None, False)
        if masks is not None and not hard:  # as released code: the mask acts on the gradient that is then clipped
            _mask_gradients(parameters, masks)
        norm = max_norm if changes else (self.args.max_grad_norm or None)
        size = gradient_norm(parameters) if norm is None else gather(nn.utils.clip_grad_norm_(parameters, norm))
        self.guard.check(f"{kind}_loss", loss, size)
        if masks is not None and hard:
            _mask_gradients(parameters, masks)
        if changes:
            every = self.args.verify_mask_steps
            verify = bool(every) and self.number % every == 0
            clipped = 1.0 if norm is None else min(1.0, norm / (size.item() + 1e-6))
            length = self._length(kind, above, clipped)
            with self.weights.forget_phase(masks, scale, hard, verify, length, learn=kind == "learn"):
                self.optimizer.step()
            if self.strength is not None:  # what goes farther must be repaired: the stock scheduler keeps this rate
                self.strength.rate = max(strength.rate for strength in self.strengths.values())
                self.weights.set_rate(self.strength.rate)
        else:
            self.optimizer.step()
        self.weights.zero_grad()

    def _length(self, kind: str, above: Above | None, clipped: float) -> Length | None:
        """How far a step goes whose loss lies so far above its end; None: as its learning rate says.

        Args:
            kind: "forget" or "learn".
            above: see `fast_step`.
            clipped: the factor by which the gradient was shortened.
        """
        strength = self.strengths.get(kind)
        if strength is None or above is None:
            return None
        strength.measure(*(global_sum(torch.stack(above).float()) / world_size()).tolist())
        for name, value in strength.logged.items():
            self._recorded.setdefault(name, []).append(torch.tensor(value, device=self.args.device))
        return lambda slope, *sizes: strength.length(slope / clipped, *sizes)


def _mask_gradients(parameters: list[Tensor], masks: list[Tensor | None]) -> None:
    """Set the gradients outside the masks to 0, in place."""
    both = [(local(p.grad), m) for p, m in zip(parameters, masks) if p.grad is not None and m is not None]
    # By bytes it takes half of what bools take.
    torch._foreach_mul_([gradient for gradient, _ in both], [mask.view(torch.uint8) for _, mask in both])
