"""What commands and scripts share: one line for a user error, and exit codes. Imports nothing heavy."""

import argparse
import atexit
import gc
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ..common.errors import DivergenceError, OutOfMemory, redact
from ..common.processes import is_first
from ..common.versions import VersionFault, version_fault
from .quiet import quiet_libraries
from .watch import watched

BARS_AFTER = 2  # seconds that a bar must last before it is shown


class OneLineErrors(argparse.ArgumentParser):
    """A parser whose errors are one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {redact(' '.join(message.split()))}\n")


class CommandParser(OneLineErrors):
    """The parser of a command of `hf-unlearn`."""


def check_writable(folder: str) -> None:
    """Raise OSError in words if `folder` cannot be made or written."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"output_dir {folder} cannot be written ({error.strerror}): name another folder") from error


def run(main: Callable[[], None]) -> NoReturn:
    """Run a script's main; errors a user can mend are one line and exit code 2.

    So is any other error where a package that the run needs is too old or missing, which then is the likely cause.
    HF_UNLEARN_TRACEBACK=1 shows the traceback too.
    """
    atexit.register(gc.freeze)  # or the interpreter looks through all of torch for garbage before it ends: 1 s
    # tqdm reads it when it is imported: libraries' bars of files that are read in a moment are not shown.
    os.environ.setdefault("TQDM_DELAY", str(BARS_AFTER))
    try:
        with watched("loading libraries"), quiet_libraries():
            main()
    except (ValueError, OSError, DivergenceError, OutOfMemory) as error:
        _leave_with(str(error))
    except Exception as error:
        fault = version_fault(error)
        if not fault:
            raise
        _leave_with(str(error) if isinstance(error, VersionFault) else f"{fault} ({type(error).__name__}: {error})")
    except KeyboardInterrupt as stop:  # a trainer says what was kept, if anything was
        if is_first():
            print(redact(str(stop)) or "interrupted", file=sys.stderr)
        _leave(130)
    _leave(0)


def _leave_with(said: str) -> NoReturn:
    """Print one line about the error that is being handled, in the first process, and exit with code 2."""
    if os.environ.get("HF_UNLEARN_TRACEBACK") == "1":
        print(redact(traceback.format_exc()), file=sys.stderr)
    if is_first():
        print(f"{Path(sys.argv[0]).name}: error: {redact(' '.join(said.split()))}", file=sys.stderr)
    _leave(2)


def _leave(code: int) -> NoReturn:
    """Exit; one of several processes without the end of the interpreter.

    Then gloo's threads may still let go of tensors, which aborts the process (pytorch/pytorch#179291): the launcher
    takes that for a failure and stops the others, among them the first one, which still measures.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        atexit._run_exitfuncs()  # trackers finish in there
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
