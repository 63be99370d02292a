"""Ctrl-C while training: the outer step is taken to its end, a checkpoint is written, and the run says so."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from ..common.losses import global_sum, world_size
from ..data.streaming import StreamedPairs
from .config import UnlearnConfig

NOTE = b"\ninterrupted: a checkpoint is written after this outer step; Ctrl-C again stops at once without one\n"
ECHO = 5.0  # seconds in which a launcher passes on the signal that its processes have had from the terminal
RESUME = "--resume_from_checkpoint latest"


class Interrupt(TrainerCallback):
    """Turns the first Ctrl-C into a checkpoint at the end of the outer step, and the end of the run.

    In the middle of an outer step some of the method's fast steps are taken and others are not: such weights belong
    to no step that a resumed run could go on from.

    Args:
        args: of the run.
        save: writes a checkpoint of the weights as they are.
        data: what is trained on. Batches of a stream that were read, but not trained on, do not come again.
    """

    def __init__(self, args: UnlearnConfig, save: Callable[[], None], data: Any):
        self.args, self.save = args, save
        self.replays = not isinstance(data, StreamedPairs)
        self.asked, self.asked_at = False, 0.0  # by a Ctrl-C in this process, and when
        self.agreed = False  # by all processes
        self.step = 0  # outer steps that were begun
        self.whole: int | None = None  # the outer steps behind the weights; None within a step and before the first
        self.written: Path | None = None  # the last checkpoint of this call of `train`

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Inside, a KeyboardInterrupt says what was kept, and how to go on; whole weights are kept first."""
        self.asked, self.agreed, self.step, self.whole, self.written = False, False, 0, None, None
        try:
            yield
        except KeyboardInterrupt:
            if not self.args.checkpoint_on_interrupt:
                raise
            if self.whole is not None and self.replays and world_size() == 1 and not self.asked:
                self._keep(self.whole)
            raise KeyboardInterrupt(self._message()) from None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, Ctrl-C waits for the end of the outer step. Other handlers, and other threads, are left alone."""
        in_main = threading.current_thread() is threading.main_thread()
        ours = in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ours = ours and self.args.checkpoint_on_interrupt
        if ours:
            signal.signal(signal.SIGINT, self._ask)
        try:
            yield
            if self._agree() and self.whole is not None:
                self._keep(self.whole)
                raise KeyboardInterrupt
        finally:
            if ours:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked and (world_size() == 1 or time.monotonic() > self.asked_at + ECHO):
            raise KeyboardInterrupt
        if self.asked:
            return
        self.asked, self.asked_at = True, time.monotonic()
        if self.args.process_index == 0:
            os.write(2, NOTE)  # a handler may run within a print, where another print is refused

    def _agree(self) -> bool:
        """Return whether any process was asked to stop. Every process must call it."""
        self.agreed = self.asked
        if world_size() > 1:
            self.agreed = bool(global_sum(torch.tensor(float(self.asked), device=self.args.device)).item())
        return self.agreed

    def _keep(self, step: int) -> None:
        if self.written != self._checkpoint(step):
            self.args.save_only_model = False  # nothing could go on from weights alone
            self.save()
            self.written = self._checkpoint(step)

    def _checkpoint(self, step: int) -> Path:
        return Path(self.args.output_dir or ".") / f"checkpoint-{step}"

    # ---- events ------------------------------------------------------------------------------------
    def begin(self, step: int) -> None:
        """A step moves the weights from now on, after `step` earlier ones."""
        self.step, self.whole = step, None

    def on_step_end(self, args, state, control, **kwargs):
        self.step = self.whole = state.global_step
        if self._agree():
            args.save_only_model = False
            control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        self.written = self._checkpoint(state.global_step)
        if self.agreed:  # not before: a checkpoint that keeps the control would stop the resumed run at once
            control.should_training_stop = True

    def _message(self) -> str:
        """Say where the run stopped and how to go on."""
        if self.written is None:
            return "interrupted: no checkpoint was written, so the run starts again from its beginning"
        where = f"within outer step {self.step + 1}" if self.whole is None else f"after outer step {self.whole}"
        return f"interrupted {where}: {RESUME} goes on from {self.written}"
