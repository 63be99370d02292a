"""Numbers that go wrong in a run: found at the step, explained in one line, the last good weights kept."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import TrainerCallback

from ..common.errors import DivergenceError
from ..common.losses import global_sum, world_size
from ..common.weights import load_weights, save_weights
from ..data.numerics import bad_samples, bad_weight, finite_batch, say_samples, total_norm
from ..data.streaming import RetainStream
from ..families.base import Objective
from ..saving.export import export
from .config import UnlearnConfig
from .optim import FastSlow

MAX_OVERFLOWS = 25  # a scaler starts at 2^16 and halves each time: now it is far below 1
LEARN_STEPS = 10  # of a run that learns: a new class takes the known ones along until the repair steps catch up
STILL_STEPS = 3  # a loss that measures the distance to the original may be at its minimum in the first one


class DivergenceGuard(TrainerCallback):
    """Keeps the last good weights on disk and stops with a clear error when a loss, a gradient or a weight is not
    finite, a loss explodes, or every gradient is exactly 0.

    Snapshots go to `output_dir/last_good.safetensors` every `guard_steps` outer steps; on divergence they are
    exported, loadable, to `output_dir/last_good`.

    Args:
        objective, args: of the run.
        sets: the training sets by name, to say which samples are at fault.
        averaged: gives a context in which the model holds the weights to keep.
        gather: makes a sharded network whole again, before its last good weights are exported.
    """

    def __init__(
        self,
        objective: Objective,
        args: UnlearnConfig,
        sets: dict[str, Any],
        averaged: Callable[[], AbstractContextManager[None]],
        gather: Callable[[], None],
    ):
        self.objective, self.args, self.sets = objective, args, sets
        self.averaged, self.gather = averaged, gather
        self.fast_slow: FastSlow | None = None  # from `attach` on
        self.accelerator: Accelerator | None = None  # from the end of the trainer's construction on
        self.first_retain: float | None = None
        self.first_forget: float | None = None
        self.batch: dict = {}  # of the present outer step, to say which samples are at fault
        self.moving, self.still, self.overflows = False, 0, 0
        self.high = 0  # retain losses in a row that were over the limit
        self.number, self.kept = 0, 0  # outer steps taken, and those before the last snapshot

    def attach(self, fast_slow: FastSlow) -> None:
        """Take the optimizer of the run."""
        self.fast_slow = fast_slow

    @property
    def _snapshot(self) -> Path:
        return Path(self.args.output_dir or ".") / "last_good.safetensors"

    # ---- checks of one step ------------------------------------------------------------------------
    def check(self, name: str, loss: Tensor, norm: Tensor) -> None:
        """Raise DivergenceError on all processes if `loss` or its gradient (`norm`: its size) is not finite on any.

        With an fp16 scaler, which skips such steps by itself, only if MAX_OVERFLOWS gradients in a row are not.
        """
        norm = norm.to(loss.device)
        facts = torch.stack([loss.detach().isfinite().all(), norm.isfinite(), norm != 0]).float()
        good_loss, good_norm, moving = (global_sum(facts) / world_size()).tolist()
        launcher = self.accelerator
        # DeepSpeed keeps gradients to itself.
        self.moving |= moving > 0 or (launcher is not None and launcher.distributed_type == "DEEPSPEED")
        self.overflows = 0 if good_norm == 1 else self.overflows + 1
        scaled = launcher is not None and launcher.scaler is not None
        if good_loss < 1:
            self._fail(f"{name} is not finite{self._cause()}")
        if good_norm < 1 and not scaled:
            self._fail(f"the gradient of {name} is not finite although {name} is{self._cause()}")
        if self.overflows >= MAX_OVERFLOWS:
            self._fail(f"fp16 overflow, the last {self.overflows} gradients were not finite", "Set bf16 or no fp16")

    def _cause(self) -> str:
        """Say what made it so, as far as can be seen."""
        if not finite_batch(self.batch):
            in_sets = {n: part for n, part in self.sets.items() if part is not None}
            read = {n: bad_samples(part) for n, part in in_sets.items() if not isinstance(part, RetainStream)}
            named = " and ".join(say_samples(name, positions) for name, positions in read.items() if positions)
            return f": {named or 'the batch holds inf or NaN'}"
        return ": fp16 overflows beyond 65504, set bf16 or no fp16" if self.args.fp16 else ""

    def expect_retain(self, measure: Callable[[], Tensor]) -> None:
        """Measure, once a run, the original's loss on a retain batch: later retain losses are compared with it."""
        if self.first_retain is None:
            with torch.no_grad():
                self.first_retain = global_sum(measure()).item() / world_size()

    def check_retain(self, loss: Tensor) -> None:
        """Compare a retain loss with the original's. One over the limit ends a run; where it learns, ten in a row."""
        value = global_sum(loss).item() / world_size()
        first = self.first_retain if self.first_retain is not None else value
        # A trained classifier loses almost nothing, so many times that is still little: chance level is the floor.
        limit = max(self.args.max_loss_ratio * first, 2 * self.objective.chance_loss)
        self.high = 0 if value <= limit else self.high + 1
        patience = LEARN_STEPS if self.sets.get("learn") is not None and math.isfinite(value) else 1
        if self.high >= patience:
            self._fail(f"retain_loss {value:.4g} is over {limit:.4g}, max_loss_ratio times the original's")

    def check_forget(self, loss: Tensor, name: str = "forget_loss") -> None:
        """For methods without a retain loss: compare a forget loss, or that of the step, with the original's; 1 is
        what noise costs."""
        value = global_sum(loss).item() / world_size()
        if self.first_forget is None:
            self.first_forget = value
        limit = self.args.max_loss_ratio * max(self.first_forget, self.objective.chance_loss, 1.0)
        if not abs(value) <= limit:
            self._fail(f"{name} {value:.4g} is over {limit:.4g}, max_loss_ratio times the original's or 1")

    # ---- snapshots -----------------------------------------------------------------------------------
    def on_train_begin(self, args, state, control, **kwargs):
        self.number = self.kept = state.global_step
        self.still = 0
        self._save(state)

    def on_step_begin(self, args, state, control, **kwargs):
        self.number = state.global_step

    def on_step_end(self, args, state, control, **kwargs):
        self.number = state.global_step
        self.still = 0 if self.moving else self.still + 1
        if self.still >= min(STILL_STEPS, state.max_steps):
            self._snapshot.unlink(missing_ok=True)
            adapter = self.objective.adapter is not None
            mend = "no layer of the adapter is reached by the loss, set lora_select=all" if adapter else "see the loss"
            raise ValueError(
                f"nothing is learnt: all gradients of the first {self.still} outer steps were exactly 0 ({mend}); "
                "the weights are as they were"
            )
        if args.guard_steps and state.global_step % args.guard_steps == 0:
            self._save(state)

    def on_train_end(self, args, state, control, **kwargs):
        self._check_weights()
        if state.is_world_process_zero:
            self._snapshot.unlink(missing_ok=True)

    def _save(self, state: Any) -> None:
        self._check_weights()
        if self.args.guard_steps:
            with self.averaged():
                save_weights(self.objective.network, self._snapshot, state.is_world_process_zero)
            self.kept = state.global_step

    def _check_weights(self) -> None:
        if self.fast_slow is None:
            raise RuntimeError("the optimizer is made by train()")
        good = total_norm(self.fast_slow.parameters).isfinite().float()
        if global_sum(good).item() < world_size():
            self._fail(f"weight {bad_weight(self.objective.network)} is not finite")

    def _fail(self, reason: str, mend: str = "Lower forget_alpha or the learning rates") -> None:
        self.gather()
        where = "guard_steps is 0, so no weights were kept"
        if self.args.guard_steps and self.args.process_index == 0:
            folder = Path(self.args.output_dir or ".") / "last_good"
            load_weights(self.objective.network, self._snapshot)
            export(self.objective, folder)
            self._snapshot.unlink()
            where = f"the weights of step {self.kept} are in {folder}"
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()  # a launcher kills the others as soon as one process fails
        raise DivergenceError(f"diverged at outer step {self.number + 1}: {reason}; {where}. {mend}")

    def state_dict(self) -> dict[str, Any]:
        return {"first_retain": self.first_retain, "first_forget": self.first_forget, "high": self.high}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first_retain, self.first_forget = state["first_retain"], state["first_forget"]
        self.high = state["high"]
