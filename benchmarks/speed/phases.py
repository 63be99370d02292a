"""Seconds by phase of a trainer's outer steps. Its methods are wrapped here: the loop itself knows nothing of it."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
from transformers import TrainerCallback

from hf_unlearn import UnlearnTrainer
from hf_unlearn.training import fast_steps as loop

BY_PART = ("forward", "target forward", "backward")
PHASES = ("data", "draws", *(f"{part} {phase}" for part in ("forget", "retain") for phase in BY_PART))
PHASES = tuple(
    phase for phase in PHASES if phase != "forget target forward"
)  # an anchor is predicted by a forward of its own
PHASES += ("mask", "clip", "optimizer", "merge", "guard", "logging")


class Phases(TrainerCallback):
    """Each phase without those inside it; what no phase takes is `rest` in `shares`."""

    def __init__(self, trainer: UnlearnTrainer):
        self.trainer = trainer
        self.seconds: Counter = Counter()
        self._inner = [0.0]
        self._part = "forget"
        trainer.add_callback(self)

    def timed(self, phase: str, call: Callable) -> Callable:
        """`call`, whose seconds count for `phase`."""

        def timer(*args: Any, **kwargs: Any) -> Any:
            label = f"{self._part} {phase}" if phase in BY_PART else phase
            start = perf_counter()
            self._inner.append(0.0)
            try:
                return call(*args, **kwargs)
            finally:
                whole = perf_counter() - start
                self.seconds[label] += whole - self._inner.pop()
                self._inner[-1] += whole

        return timer

    @contextmanager
    def hooked(self):
        """Inside, the trainer's steps are timed."""
        trainer = self.trainer
        begin, fast = trainer.step.begin, trainer.step.fast_step

        def begin_step(*args: Any) -> Any:
            self._part = "forget"
            return begin(*args)

        def fast_step(*args: Any, **kwargs: Any) -> None:
            fast(*args, **kwargs)
            self._part = "retain"

        found = [
            (trainer, "get_batch_samples", "data"),
            (trainer.step.draws, "add", "draws"),
            (trainer.step, "_forward", "forward"),
            (trainer.objective, "predict", "target forward"),
            (trainer.accelerator, "backward", "backward"),
            (loop, "_mask_gradients", "mask"),
            (torch.nn.utils, "clip_grad_norm_", "clip"),
            (trainer, "_maybe_log_save_evaluate", "logging"),
            *((trainer.guard, name, "guard") for name in ("check", "check_retain", "expect_retain", "_save")),
        ]
        with ExitStack() as self._stack:
            self._stack.enter_context(patch.object(trainer.step, "begin", begin_step))
            self._stack.enter_context(patch.object(trainer.step, "fast_step", fast_step))
            for owner, name, phase in found:
                self._stack.enter_context(patch.object(owner, name, self.timed(phase, getattr(owner, name))))
            yield

    def on_train_begin(self, args, state, control, **kwargs):
        """The optimizers are there now."""
        fast_slow = self.trainer.step.weights
        found = [(fast_slow, name, "merge") for name in ("begin", "merge")]
        found += [(fast_slow, name, "mask") for name in ("_outside", "_restore")]
        found += [(fast_slow.base, "step", "optimizer"), (fast_slow, "zero_grad", "optimizer")]
        if fast_slow.forget is not None:
            found.append((fast_slow.forget, "step", "optimizer"))
        for owner, name, phase in found:
            self._stack.enter_context(patch.object(owner, name, self.timed(phase, getattr(owner, name))))

    def shares(self, total: float) -> dict[str, float]:
        """Of `total` seconds, by phase, in the order of an outer step."""
        shares = {phase: self.seconds[phase] / total for phase in PHASES if self.seconds[phase]}
        return {**shares, "rest": 1 - sum(shares.values())}
