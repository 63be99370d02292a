"""A terminal that is never silent: where nothing is printed for a while, a line says what goes on and for how long.

The line is only there on a terminal and only while nothing else prints. Whatever prints next takes its place.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from ..common.bars import listen
from ..common.processes import is_first

QUIET = 4.0  # seconds of silence before the line appears
BEAT = 1.0  # seconds between two looks
ERASE = "\r\x1b[K"


class Watch:
    """Knows the phase, and what both streams printed last.

    Args:
        screen: the terminal.
        clock: seconds; a test gives its own.
    """

    def __init__(self, screen: TextIO, clock: Any = time.monotonic):
        self.screen, self.clock = screen, clock
        self.lock = threading.RLock()
        self.phase = ""
        self.expected: float | None = None
        self.began = self.last = clock()
        self.shown = False
        self.tail = ""  # what stands on the line where the cursor is

    def enter(self, phase: str, expected: float | None = None) -> None:
        """Begin a phase. `expected`: seconds that it took last time, where that is known."""
        with self.lock:
            self.phase, self.expected, self.began = phase, expected, self.clock()

    def beat(self) -> None:
        """Show or renew the line if it was quiet for long enough."""
        with self.lock:
            now = self.clock()
            if not self.phase or now - self.last < QUIET:
                return
            self.shown = True
            self.screen.write(f"{ERASE}{self.line(now)}")
            self.screen.flush()

    def line(self, now: float) -> str:
        """What is said: a bar that stands still with its pause, or the phase with its time."""
        if self.tail.strip():
            return f"{self.tail.rstrip()[: columns() - 24]} (for {clock_text(now - self.last)})"[: columns() - 1]
        spent = now - self.began
        left = ""
        if self.expected is not None and self.expected > spent:
            left = f", about {clock_text(self.expected - spent)} left"
        return f"{self.phase}: {clock_text(spent)}{left}"[: columns() - 1]

    def printed(self, stream: TextIO, text: str) -> int:
        """Print what someone else prints, in place of the line."""
        with self.lock:
            if self.shown:
                self.shown = False
                self.screen.write(ERASE if text[:1] in ("\r", "\n", "") else f"{ERASE}{self.tail}")
                self.screen.flush()
            count = stream.write(text)
            self.tail = (self.tail + text).replace("\r\n", "\n").rpartition("\n")[2].rpartition("\r")[2]
            if text.strip():  # a bar on a terminal of no columns is blank, and would keep the line away
                self.last = self.clock()
            return count


class Watched:
    """A stream that tells a Watch what goes through it."""

    def __init__(self, stream: TextIO, watch: Watch):
        self._stream, self._watch = stream, watch

    def write(self, text: str) -> int:
        return self._watch.printed(self._stream, text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def watched(phase: str) -> Iterator[None]:
    """Watch a command from here on, if it has a terminal and is the first process."""
    if not sys.stderr.isatty() or not is_first() or isinstance(sys.stderr, Watched):
        yield
        return
    out, err = sys.stdout, sys.stderr
    watch = Watch(err)
    watch.enter(phase)
    unheard = listen(watch.enter)
    done = threading.Event()

    def beats() -> None:
        while not done.wait(BEAT):
            watch.beat()

    thread = threading.Thread(target=beats, daemon=True, name="hf_unlearn-watch")
    if out.isatty():
        sys.stdout = Watched(out, watch)  # type: ignore[assignment]
    sys.stderr = Watched(err, watch)  # type: ignore[assignment]
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        unheard()
        sys.stdout, sys.stderr = out, err
        if watch.shown:
            err.write(ERASE)
            err.flush()


def columns() -> int:
    """Width of the terminal."""
    try:
        return os.get_terminal_size(sys.__stderr__.fileno() if sys.__stderr__ else 2).columns or 80
    except OSError:
        return 80


def clock_text(seconds: float) -> str:
    """Seconds as "0:07" or "1:02:03"."""
    minutes, rest = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
