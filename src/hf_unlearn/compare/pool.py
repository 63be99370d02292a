"""Run calls in processes of one thread each, or in this process."""

import os
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

from tqdm import tqdm

from ..common.bars import phase


class InProcess(Executor):
    """Runs each call when it is submitted."""

    def submit(self, function, /, *args, **kwargs) -> Future:
        future: Future = Future()
        future.set_result(function(*args, **kwargs))
        return future


def pool_of(jobs: int | None) -> Executor:
    """A pool of `jobs` processes; None starts one for each core, and 0 stays in this process."""
    if jobs == 0:
        return InProcess()
    return ProcessPoolExecutor(jobs or os.cpu_count() or 1, get_context("spawn"), _one_thread)


def collect(running: dict[Future, Any], what: str, progress: bool) -> dict[Any, Any]:
    """Wait for all calls and return their results by name; `what` is the title of the progress bar."""
    done = {}
    if running:
        phase(f"{what}: none of {len(running)} is done yet")
    for future in tqdm(as_completed(running), total=len(running), desc=what, disable=not progress):
        done[running[future]] = future.result()
    return done


def _one_thread() -> None:
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
