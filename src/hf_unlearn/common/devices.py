"""Which kind of device this machine has, and whether the processes that were launched know of each other."""

import os

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def runs_on_cpu() -> bool:
    """Return whether everything runs on the CPU: accelerate finds no other device, or is told so.

    accelerate joins the processes of a launcher on a CPU only where it is told that they run there.
    """
    # Every kind that accelerate knows (CUDA, MPS, XPU, NPU, ...): the property reads nothing of an instance.
    found = PartialState.default_device.fget(None)
    return parse_flag_from_env("ACCELERATE_USE_CPU") or found.type == "cpu"


def launched_processes() -> int:
    """Return how many processes a launcher such as torchrun says that it started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_launched() -> bool:
    """Return whether a launcher has told this process its place among several ones, and where they meet."""
    return launched_processes() > 1 and all(name in os.environ for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR"))


def check_joined(processes: int) -> None:
    """Raise ValueError if a launcher started several processes, each of which would be a run of its own.

    Args:
        processes: how many accelerate knows of.
    """
    if processes == 1 and launched_processes() > 1:
        raise ValueError(
            f"WORLD_SIZE is {launched_processes()}, but this process runs alone, and several runs would write the "
            "same files: set ACCELERATE_USE_CPU=true to join them on the CPU, or start one process (no WORLD_SIZE)"
        )


def joined_state(**options: object) -> PartialState:
    """Return accelerate's state of this process, on whatever device accelerate takes.

    Args:
        options: of PartialState, such as `timeout`.

    Raises:
        ValueError: what `check_joined` raises.
    """
    state = PartialState(cpu=runs_on_cpu(), **options)
    check_joined(state.num_processes)
    return state
