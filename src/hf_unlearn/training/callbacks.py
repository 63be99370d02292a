"""What happens around an outer step: the merge, the progress bar, the two-sided stop."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from ..common.bars import bar
from ..common.weights import load_weights, save_weights
from ..families.base import Objective
from .config import UnlearnConfig
from .optim import FastSlow
from .strength import Strength, planned_steps


class MergeSlowWeights(TrainerCallback):
    """The slow merge, right after the final optimizer step of an outer step."""

    def __init__(self) -> None:
        self.fast_slow: FastSlow | None = None  # from `attach` on

    def attach(self, fast_slow: FastSlow) -> None:
        """Take the optimizer of the run."""
        self.fast_slow = fast_slow

    def on_optimizer_step(self, args, state, control, **kwargs):
        if self.fast_slow is not None:
            self.fast_slow.merge()

    def averaged(self) -> AbstractContextManager[None]:
        """A context in which the model holds the weights to evaluate and to save."""
        return self.fast_slow.averaged() if self.fast_slow is not None else nullcontext()


class UntilForgotten(TrainerCallback):
    """Ends a run that finds its strength, once its steps have faded."""

    def __init__(self, strength: Callable[[], Strength | None]):
        self.strength = strength

    def over(self, args: UnlearnConfig, state: TrainerState) -> bool:
        """Whether all steps are taken."""
        strength, most = self.strength(), state.max_steps
        last = most if strength is None else strength.last(planned_steps(args, most), most)
        return state.global_step >= last

    def on_step_end(self, args, state, control, **kwargs):
        if self.over(args, state):  # with what stock callbacks do at the last step of a run that takes all of them
            control.should_training_stop = True
            control.should_evaluate |= args.eval_strategy == "steps" and args.eval_delay <= state.global_step
            control.should_save |= args.save_strategy == "steps"


class UnlearnProgress(ProgressCallback):
    """A bar over outer steps with the forget and retain loss behind it, instead of a printed dict a log line."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not (state.is_world_process_zero and self.training_bar is not None):
            return
        shown = {k: f"{logs[f'{k}_loss']:.4f}" for k in ("learn", "forget", "retain") if f"{k}_loss" in logs}
        shown.update({k[5:]: f"{v:.3f}" for k, v in logs.items() if k in ("eval_forget_score", "eval_retain_drift")})
        if shown:
            self.training_bar.set_postfix(shown)


def settle_callbacks(trainer: Trainer) -> None:
    """Put this package's progress bar in the place of the stock one, and TensorBoard's files in one folder.

    The stock callback chooses the folder when training begins. What was logged before, as by an evaluation of the
    original, would go to `runs` in the current folder, and so would all that follows.
    """
    if trainer.pop_callback(ProgressCallback):
        trainer.add_callback(UnlearnProgress)
    if trainer.args.logging_strategy == "no":  # then the closing summary is not wanted either
        trainer.remove_callback(PrinterCallback)
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(
                Path(trainer.args.output_dir or ".", "runs", f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
            )


class TwoSidedStop:
    """Early stop on both sides: forgotten enough, or retained data hurt too much; the best weights are kept.

    Best is the lowest forget score among the evaluations within `max_retain_drift`; that of the original is 1. Its
    weights wait in
    `output_dir/best.safetensors` and are loaded when training ends.
    """

    def __init__(self, objective: Objective, args: UnlearnConfig):
        self.objective, self.args = objective, args
        self.best: dict[str, float] | None = None
        self.reached = False  # a run that is resumed from here takes no further step

    @property
    def active(self) -> bool:
        """Whether the arguments set a limit on either side."""
        return self.args.target_forget is not None or self.args.max_retain_drift is not None

    @property
    def _weights(self) -> Path:
        return Path(self.args.output_dir or ".") / "best.safetensors"

    @property
    def _writes(self) -> bool:
        return self.args.process_index == 0

    def restart(self) -> None:
        """Begin a call of `train`, which has a best of its own."""
        self.best, self.reached = None, False

    def start(self, measured: Any) -> None:
        """Take the original, just measured, as the first one: it is kept if no evaluation stays within the drift."""
        if self.args.max_retain_drift is not None:
            self.update(1.0, 0.0, 0)

    def update(self, forget_score: float, retain_drift: float, step: int) -> bool:
        """Take in the evaluation after `step` outer steps; return True if training should stop."""
        args = self.args
        if not self.active:
            return False
        within = args.max_retain_drift is None or retain_drift <= args.max_retain_drift
        if within and (self.best is None or forget_score < self.best["forget_score"]):
            self.best = {"forget_score": forget_score, "retain_drift": retain_drift, "step": step}
            save_weights(self.objective.network, self._weights, self._writes)
        reached = within and args.target_forget is not None and forget_score <= args.target_forget
        self.reached = reached or not within
        return self.reached

    def copy_to(self, checkpoint: Path) -> None:
        """Put the best weights into a checkpoint."""
        if self.best is not None:
            shutil.copyfile(self._weights, checkpoint / self._weights.name)

    def copy_from(self, checkpoint: Path) -> None:
        """Take the best weights from a checkpoint, whatever folder the resumed run writes to."""
        kept = checkpoint / self._weights.name
        if kept.is_file() and self._writes:
            shutil.copyfile(kept, self._weights)

    def restore(self) -> None:
        """Load the best weights, if any evaluation was within bounds. Every process must call it."""
        if self.best is not None and self.active:
            PartialState().wait_for_everyone()
            load_weights(self.objective.network, self._weights)
            PartialState().wait_for_everyone()
            if self._writes:
                self._weights.unlink()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "stopped": self.reached}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.reached = state["best"], state["stopped"]


class Progress(TrainerCallback):
    """A bar of the outer steps, for trainings that say nothing else of themselves.

    Args:
        what: its title.
    """

    def __init__(self, what: str):
        self.what = what
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar = bar(range(state.max_steps), self.what)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.close()
