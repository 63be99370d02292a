"""Fast and slow weights around any elementwise optimizer, with a second optimizer for the forget steps.

Within an outer step the *fast* weights move: a masked forget step, then retain steps. `merge` then moves the
*slow* weights towards them (Lookahead form, arXiv 1907.08610; the outer update of SFR-on, arXiv 2409.19732):

    slow <- slow + rate * (fast - slow),   fast <- slow

`form="ema"` keeps the fast weights and only lets the slow ones follow: slow <- slow + rate * (fast - slow). The slow
copy is then what is evaluated and saved (`averaged`).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..common.sharding import largest_of_shards, local_shards
from .directions import step_along

Length = Callable[[float, float, float], float]  # see directions.step_along


class FastSlow(Optimizer):
    """Wrap the retain optimizer `base` so that schedulers, scalers and checkpoints see one optimizer.

    Args:
        base: optimizer of the retain steps. Its param_groups are this optimizer's.
        forget: optimizer of the forget steps over the same parameters in the same order. None shares `base`, so the
            forget step inherits the retain momentum.
        rate: beta, in (0, 1]. At 1 the Lookahead form makes no slow copy.
        form: "lookahead" or "ema".
        buffers: floating-point buffers (BatchNorm statistics) that are merged at the same rate.
        offload: whether to keep the slow copy in host memory. A merge then moves every weight there and back.
        learn: optimizer of the steps on new data, as `forget` is of the forget steps.
    """

    def __init__(
        self,
        base: Optimizer,
        forget: Optimizer | None = None,
        rate: float = 1.0,
        form: Literal["lookahead", "ema"] = "lookahead",
        buffers: Iterable[Tensor] = (),
        offload: bool = False,
        learn: Optimizer | None = None,
    ):
        if not 0 < rate <= 1:
            raise ValueError(f"slow rate must lie in (0, 1], got {rate}: 1 means no slow weights")
        if form not in ("lookahead", "ema"):
            raise ValueError(f"form must be 'lookahead' or 'ema', got {form!r}")
        super().__init__(base.param_groups, base.defaults)
        self.base, self.forget, self.learn, self.rate, self.form = base, forget, learn, rate, form
        self.buffers, self.offload = list(buffers), offload
        self.state = base.state
        self._slow: list[Tensor] | None = None
        self._forget_call: tuple[list[Tensor | None] | None, float, bool, bool, Length | None, bool] | None = None
        self.masks: list[Tensor | None] | None = None  # the weights that any step may move; None: all
        self.mask_drift = 0.0

    @property
    def parameters(self) -> list[Tensor]:
        return [p for group in self.base.param_groups for p in group["params"]]

    @property
    def _merged(self) -> list[Tensor]:
        return self.parameters + self.buffers

    # ---- steps -----------------------------------------------------------------------------------
    @contextmanager
    def forget_phase(
        self,
        masks: list[Tensor | None] | None,
        scale: float = 1.0,
        hard: bool = True,
        verify: bool = False,
        length: Length | None = None,
        learn: bool = False,
    ) -> Iterator[None]:
        """Make `step` a forget step inside: the forget optimizer at `scale` times its scheduled learning rate.

        Args:
            masks: one bool tensor for each parameter, True where it may move. None lets all of it move.
            hard: keep the weights outside the masks bit-identical, whatever momentum and weight decay do. Otherwise
                the caller masks only the gradient.
            verify: measure the largest drift outside the masks into `mask_drift`.
            length: go this far along the direction of a separate forget optimizer, instead of at its learning rate
                (`directions.step_along`).
            learn: it is a learn step, which has an optimizer of its own, and all else alike.
        """
        self._forget_call = (masks, scale, hard, verify, length, learn)
        try:
            yield
        finally:
            self._forget_call = None

    def step(self, closure=None):
        if self._forget_call is None:
            kept = self._outside(self.masks, self.base, hard=True, verify=False)
            result = self.base.step(closure)
            self._restore(self.masks, kept, hard=True, verify=False)
            return result
        masks, scale, hard, verify, length, learn = self._forget_call
        optimizer = (self.learn if learn else self.forget) or self.base
        kept = self._outside(masks, optimizer, hard, verify)
        before = [group["lr"] for group in optimizer.param_groups]
        for group, lead in zip(optimizer.param_groups, self.base.param_groups):
            # The forget learning rate follows the retain scheduler: the same relative factor from its own start.
            decay = 1.0 if optimizer is self.base or not lead.get("initial_lr") else lead["lr"] / lead["initial_lr"]
            group["lr"] = group["lr"] * decay * scale if length is None else 0.0  # at 0 the moments alone move
        result = optimizer.step(closure)
        for group, lr in zip(optimizer.param_groups, before):
            group["lr"] = lr
        if length is not None:
            step_along(optimizer, length)
        self._restore(masks, kept, hard, verify)
        return result

    def _outside(self, masks, optimizer, hard, verify) -> list[Tensor | None] | None:
        """Copy the weights that must not move. Return None where they cannot move or need no check.

        A separate forget optimizer with masked gradients and without weight decay never moves a masked-out weight,
        because its moments there are exactly 0. Only then is no copy needed.
        """
        if masks is None:
            return None
        still = optimizer is not self.base and all(not group.get("weight_decay") for group in optimizer.param_groups)
        if (still or not hard) and not verify:
            return None
        return [p.clone() if m is not None else None for p, m in zip(local_shards(self.parameters), masks)]

    @torch.no_grad()
    def _restore(self, masks, kept, hard, verify) -> None:
        if kept is None:
            return
        for p, m, old in zip(local_shards(self.parameters), masks, kept):
            if old is None:
                continue
            if hard:
                p.copy_(torch.where(m, p, old))
            if verify and not m.all():
                drift = (p - old).abs().masked_fill(m, 0).max().item()
                self.mask_drift = max(self.mask_drift, drift)
        if verify:
            self.mask_drift = largest_of_shards(self.mask_drift, self.parameters)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the retain steps."""
        for group in self.base.param_groups:
            group["lr"] = rate

    # ---- slow weights ----------------------------------------------------------------------------
    @property
    def has_slow(self) -> bool:
        return self.form == "ema" or self.rate < 1

    @torch.no_grad()
    def begin(self) -> None:
        """Remember where the outer step starts (Lookahead), or start the average (EMA). Does nothing at rate 1."""
        if not self.has_slow or (self.form == "ema" and self._slow is not None):
            return
        if self._slow is None:
            self._slow = self._copies(self._merged)
        else:
            torch._foreach_copy_(local_shards(self._slow), local_shards(self._merged))

    @torch.no_grad()
    def merge(self) -> None:
        """Set slow <- slow + rate (fast - slow). In Lookahead form the fast weights then restart from there."""
        if not self.has_slow:
            return
        if self._slow is None:
            raise RuntimeError("merge() without begin(): call begin() before the first fast step")
        merged, slow = local_shards(self._merged), local_shards(self._slow)
        if self.offload:
            for kept, live in zip(slow, merged):  # one by one, to move little at a time
                kept.lerp_(live.to(kept.device), self.rate)
        else:
            torch._foreach_lerp_(slow, merged, self.rate)
        if self.form == "lookahead":
            torch._foreach_copy_(merged, slow)

    def _copies(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        return [t.detach().to("cpu" if self.offload else t.device, copy=True) for t in tensors]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the weights to evaluate and save into the model for the context. They differ only for `form="ema"`."""
        if self.form != "ema" or self._slow is None:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def finish(self) -> None:
        """Leave the final weights in the model: with `form="ema"` the slow ones. A later run starts a new average."""
        if self.form == "ema" and self._slow is not None:
            torch._foreach_copy_(local_shards(self._merged), local_shards(self._slow))
            self._slow = None

    @torch.no_grad()
    def _swap(self) -> None:
        for live, slow in zip(local_shards(self._merged), local_shards(self._slow or ())):
            held = live.detach().clone()
            live.copy_(slow)
            slow.copy_(held)

    # ---- sharded weights -------------------------------------------------------------------------
    def relink(self, buffers: Iterable[Tensor]) -> None:
        """Follow the base optimizer, whose weights FSDP has replaced by shards, with buffers and other optimizers."""
        self.buffers = list(buffers)
        for _, optimizer in self.parts()[1:]:
            for group, lead in zip(optimizer.param_groups, self.base.param_groups, strict=True):
                group["params"] = list(lead["params"])

    def parts(self) -> list[tuple[str, Optimizer]]:
        """The optimizers by name: base, and forget and learn where they have one of their own."""
        own = (("forget", self.forget), ("learn", self.learn))
        return [("base", self.base), *((name, optimizer) for name, optimizer in own if optimizer is not None)]

    @property
    def slow(self) -> list[Tensor] | None:
        """The slow weights and buffers, where the next outer step cannot rebuild them (EMA)."""
        return self._slow if self.form == "ema" else None

    def make_slow(self) -> None:
        """Keep the weights as they are as the slow ones."""
        self._slow = self._copies(self._merged)

    # ---- plumbing --------------------------------------------------------------------------------
    def zero_grad(self, set_to_none: bool = True) -> None:
        self.base.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both optimizers, and the slow copy where the next outer step cannot rebuild it (EMA)."""
        return {
            "base": self.base.state_dict(),
            "forget": self.forget.state_dict() if self.forget is not None else None,
            **({} if self.learn is None else {"learn": self.learn.state_dict()}),
            "slow": self.slow,
            "mask_drift": self.mask_drift,
        }

    def load_state_dict(self, state_dict: dict) -> None:
        kinds = [name for name in ("forget", "learn") if state_dict.get(name) is not None]
        self.check_same_kind(kinds, state_dict["slow"] is not None)
        self.base.load_state_dict(state_dict["base"])
        self.param_groups, self.state = self.base.param_groups, self.base.state
        for name, optimizer in self.parts()[1:]:
            optimizer.load_state_dict(state_dict[name])
        if state_dict["slow"] is not None:
            self._slow = self._copies(self._merged)
            for ours, theirs in zip(self._slow, state_dict["slow"], strict=True):
                ours.copy_(theirs)
        self.mask_drift = state_dict["mask_drift"]

    def check_same_kind(self, kinds: list[str], slow: bool) -> None:
        """Raise ValueError unless a checkpoint fits this one.

        Args:
            kinds: the optimizers that it holds besides `base`, of "forget" and "learn".
            slow: whether it holds a slow copy.
        """
        for name, ours in (("forget", self.forget), ("learn", self.learn)):
            if (name in kinds) != (ours is not None):
                raise ValueError(
                    f"the checkpoint was written with another {name}_optim (separate or shared): resume with the same "
                    "one"
                )
        if slow and self.form != "ema":
            raise ValueError("the checkpoint holds an EMA of the weights: resume with slow_form='ema'")
