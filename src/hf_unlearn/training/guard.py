"""Numbers that go wrong in a run: found at the step, explained in one line, the last good weights kept."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import TrainerCallback

from ..common.errors import DivergenceError
from ..common.losses import global_sum, world_size
from ..common.weights import load_weights, save_weights
from ..data.numerics import bad_samples, bad_weight, finite_batch, say_samples, total_norm
from ..data.streaming import RetainStream
from ..saving.export import export

if TYPE_CHECKING:
    from .trainer import UnlearnTrainer

MAX_OVERFLOWS = 25  # a scaler starts at 2^16 and halves each time: now it is far below 1
STILL_STEPS = 3  # a loss that measures the distance to the original may be at its minimum in the first one


class DivergenceGuard(TrainerCallback):
    """Keeps the last good weights on disk and stops with a clear error when a loss, a gradient or a weight is not
    finite, a loss explodes, or every gradient is exactly 0.

    Snapshots go to `output_dir/last_good.safetensors` every `guard_steps` outer steps; on divergence they are
    exported, loadable, to `output_dir/last_good`.
    """

    def __init__(self, trainer: "UnlearnTrainer"):
        self.trainer = trainer
        self.first_retain: float | None = None
        self.first_forget: float | None = None
        self.batch: dict = {}  # of the present outer step, to say which samples are at fault
        self.moving, self.still, self.overflows = False, 0, 0

    @property
    def _snapshot(self) -> Path:
        return Path(self.trainer.args.output_dir) / "last_good.safetensors"

    def check(self, name: str, loss: Tensor, norm: Tensor) -> None:
        """Raise DivergenceError on all processes if `loss` or its gradient (`norm`: its size) is not finite on any.

        With an fp16 scaler, which skips such steps by itself, only if MAX_OVERFLOWS gradients in a row are not.
        """
        norm = norm.to(loss.device)
        facts = torch.stack([loss.detach().isfinite().all(), norm.isfinite(), norm != 0]).float()
        good_loss, good_norm, moving = (global_sum(facts) / world_size()).tolist()
        self.moving |= moving > 0 or self.trainer.is_deepspeed_enabled  # which keeps gradients to itself
        self.overflows = 0 if good_norm == 1 else self.overflows + 1
        scaled = self.trainer.accelerator.scaler is not None
        if good_loss < 1:
            self._fail(f"{name} is not finite{self._cause()}")
        if good_norm < 1 and not scaled:
            self._fail(f"the gradient of {name} is not finite although {name} is{self._cause()}")
        if self.overflows >= MAX_OVERFLOWS:
            self._fail(f"fp16 overflow, the last {self.overflows} gradients were not finite", "Set bf16 or no fp16")

    def _cause(self) -> str:
        """What made it so, as far as can be seen, for the message."""
        if not finite_batch(self.batch):
            sets = {"forget": self.trainer.forget_dataset, "retain": self.trainer.retain_dataset}
            whole = {n: part for n, part in sets.items() if part is not None and not isinstance(part, RetainStream)}
            found = {name: bad_samples(part) for name, part in whole.items()}
            named = " and ".join(say_samples(name, positions) for name, positions in found.items() if positions)
            return f": {named or 'the batch holds inf or NaN'}"
        return ": fp16 overflows beyond 65504, set bf16 or no fp16" if self.trainer.args.fp16 else ""

    def expect(self, batch: dict[str, Tensor]) -> None:
        """Measure, once a run, the original's loss on a retain batch: what later retain losses are compared with."""
        if self.first_retain is None:
            with torch.no_grad():
                self.first_retain = global_sum(self.trainer.step.losses(batch).mean()).item() / world_size()

    def check_retain(self, loss: Tensor) -> None:
        """Compare a retain loss with the original's."""
        value = global_sum(loss).item() / world_size()
        # A trained classifier loses almost nothing, so many times that is still little: chance level is the floor.
        limit = max(self.trainer.args.max_loss_ratio * self.first_retain, 2 * self.trainer.objective.chance_loss)
        if not value <= limit:
            self._fail(f"retain_loss {value:.4g} is over {limit:.4g}, max_loss_ratio times the original's")

    def check_forget(self, loss: Tensor, name: str = "forget_loss") -> None:
        """For methods without a retain loss: compare a forget loss, or that of the step, with the original's; 1 is
        what noise costs."""
        value = global_sum(loss).item() / world_size()
        if self.first_forget is None:
            self.first_forget = value
        limit = self.trainer.args.max_loss_ratio * max(self.first_forget, self.trainer.objective.chance_loss, 1.0)
        if not abs(value) <= limit:
            self._fail(f"{name} {value:.4g} is over {limit:.4g}, max_loss_ratio times the original's or 1")

    def on_train_begin(self, args, state, control, **kwargs):
        self.step, self.still = state.global_step, 0
        self._save(state)

    def on_step_end(self, args, state, control, **kwargs):
        self.still = 0 if self.moving else self.still + 1
        if self.still >= min(STILL_STEPS, state.max_steps):
            self._snapshot.unlink(missing_ok=True)
            adapter = self.trainer.objective.adapter is not None
            mend = "no layer of the adapter is reached by the loss, set lora_select=all" if adapter else "see the loss"
            raise ValueError(
                f"nothing is learnt: all gradients of the first {self.still} outer steps were exactly 0 ({mend}); "
                "the weights are as they were"
            )
        if args.guard_steps and state.global_step % args.guard_steps == 0:
            self._save(state)

    def _save(self, state) -> None:
        self._check_weights()
        if self.trainer.args.guard_steps:
            with self.trainer._averaged():
                save_weights(self.trainer.objective.network, self._snapshot, state.is_world_process_zero)
            self.step = state.global_step

    def _check_weights(self) -> None:
        good = total_norm(self.trainer.fast_slow.parameters).isfinite().float()
        if global_sum(good).item() < world_size():
            self._fail(f"weight {bad_weight(self.trainer.objective.network)} is not finite")

    def on_train_end(self, args, state, control, **kwargs):
        self._check_weights()
        if state.is_world_process_zero:
            self._snapshot.unlink(missing_ok=True)

    def _fail(self, reason: str, mend: str = "Lower forget_alpha or the learning rates") -> None:
        trainer = self.trainer
        trainer._make_whole()
        where = "guard_steps is 0, so no weights were kept"
        if trainer.args.guard_steps and trainer.is_world_process_zero():
            folder = Path(trainer.args.output_dir) / "last_good"
            load_weights(trainer.objective.network, self._snapshot)
            export(trainer.objective, folder)
            self._snapshot.unlink()
            where = f"the weights of step {self.step} are in {folder}"
        trainer.accelerator.wait_for_everyone()  # a launcher kills the others as soon as one process fails
        raise DivergenceError(f"diverged at outer step {trainer.state.global_step + 1}: {reason}; {where}. {mend}")
