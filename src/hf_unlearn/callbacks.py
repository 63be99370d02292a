"""What happens around an outer step: the merge, the progress bar, the divergence guard, the two-sided stop."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

from .errors import DivergenceError
from .losses import global_sum, world_size
from .storage import export, load_weights, save_weights

if TYPE_CHECKING:
    from .trainer import UnlearnTrainer


class MergeSlowWeights(TrainerCallback):
    """The slow merge, right after the final optimizer step of an outer step."""

    def __init__(self, trainer: "UnlearnTrainer"):
        self.trainer = trainer

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.trainer.fast_slow.merge()


class UnlearnProgress(ProgressCallback):
    """A bar over outer steps with the forget and retain loss behind it, instead of a printed dict a log line."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not (state.is_world_process_zero and self.training_bar is not None):
            return
        shown = {k: f"{logs[f'{k}_loss']:.4f}" for k in ("forget", "retain") if f"{k}_loss" in logs}
        shown.update({k[5:]: f"{v:.3f}" for k, v in logs.items() if k in ("eval_forget_score", "eval_retain_drift")})
        if shown:
            self.training_bar.set_postfix(shown)


class DivergenceGuard(TrainerCallback):
    """Keeps the last good weights on disk and stops with a clear error when a loss is not finite or explodes.

    Snapshots go to `output_dir/last_good.safetensors` every `guard_steps` outer steps; on divergence they are
    exported, loadable, to `output_dir/last_good`.
    """

    def __init__(self, trainer: "UnlearnTrainer"):
        self.trainer = trainer
        self.first_retain: float | None = None

    @property
    def _snapshot(self) -> Path:
        return Path(self.trainer.args.output_dir) / "last_good.safetensors"

    def check(self, name: str, loss: Tensor) -> None:
        """Raise DivergenceError on all processes if `loss` is not finite on any."""
        good = torch.isfinite(loss.detach()).all().float()
        if global_sum(good).item() < world_size():
            self._fail(f"{name} is not finite")

    def expect(self, batch: dict[str, Tensor]) -> None:
        """Measure, once a run, the original's loss on a retain batch: what later retain losses are compared with."""
        if self.first_retain is None:
            with torch.no_grad():
                self.first_retain = global_sum(self.trainer.losses(batch).mean()).item() / world_size()

    def check_retain(self, loss: Tensor) -> None:
        """Compare a retain loss with the original's."""
        value = global_sum(loss).item() / world_size()
        # A trained classifier loses almost nothing, so many times that is still little: chance level is the floor.
        limit = max(self.trainer.args.max_loss_ratio * self.first_retain, 2 * self.trainer.objective.chance_loss)
        if not value <= limit:
            self._fail(f"retain_loss {value:.4g} is over {limit:.4g}, max_loss_ratio times the original's")

    def on_train_begin(self, args, state, control, **kwargs):
        self._save(state)

    def on_step_end(self, args, state, control, **kwargs):
        if args.guard_steps and state.global_step % args.guard_steps == 0:
            self._save(state)

    def _save(self, state) -> None:
        if self.trainer.args.guard_steps:
            with self.trainer._averaged():
                save_weights(self.trainer.objective.network, self._snapshot, state.is_world_process_zero)
            self.step = state.global_step

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self._snapshot.unlink(missing_ok=True)

    def _fail(self, reason: str) -> None:
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
        raise DivergenceError(
            f"diverged at outer step {trainer.state.global_step + 1}: {reason}; {where}. "
            "Lower forget_alpha or the learning rates"
        )


class TwoSidedStop:
    """Early stop on both sides: forgotten enough, or retained data hurt too much; the best weights are kept.

    Best is the lowest forget score among the evaluations within `max_retain_drift`. Its weights wait in
    `output_dir/best.safetensors` and are loaded when training ends.
    """

    def __init__(self, trainer: "UnlearnTrainer"):
        self.trainer = trainer
        self.best: dict[str, float] | None = None

    @property
    def active(self) -> bool:
        args = self.trainer.args
        return args.target_forget is not None or args.max_retain_drift is not None

    @property
    def _weights(self) -> Path:
        return Path(self.trainer.args.output_dir) / "best.safetensors"

    def update(self, forget_score: float, retain_drift: float) -> bool:
        """Take in one evaluation; True if training should stop."""
        args, step = self.trainer.args, self.trainer.state.global_step
        within = args.max_retain_drift is None or retain_drift <= args.max_retain_drift
        if within and (self.best is None or forget_score < self.best["forget_score"]):
            self.best = {"forget_score": forget_score, "retain_drift": retain_drift, "step": step}
            save_weights(self.trainer.objective.network, self._weights, self.trainer.is_world_process_zero())
        reached = within and args.target_forget is not None and forget_score <= args.target_forget
        return reached or not within

    def copy_to(self, checkpoint: Path) -> None:
        """Put the best weights into a checkpoint."""
        if self.best is not None:
            shutil.copyfile(self._weights, checkpoint / self._weights.name)

    def copy_from(self, checkpoint: Path) -> None:
        """Take the best weights from a checkpoint, whatever folder the resumed run writes to."""
        kept = checkpoint / self._weights.name
        if kept.is_file() and self.trainer.is_world_process_zero():
            shutil.copyfile(kept, self._weights)

    def restore(self) -> None:
        """Load the best weights, if any evaluation was within bounds."""
        if self.best is not None and self.active:
            self.trainer.accelerator.wait_for_everyone()
            load_weights(self.trainer.objective.network, self._weights)
            self.trainer.accelerator.wait_for_everyone()
            if self.trainer.is_world_process_zero():
                self._weights.unlink()
