"""How long a command is silent, and which of its lines are not ours.

python tools/silence.py -- hf-unlearn ddpm --max_train_steps 3 --output_dir /tmp/x
python tools/silence.py --limit 10 --log screen.txt -- hf-unlearn sd ...

The command runs in a terminal of its own, so that bars are drawn as a person sees them. Printed are: the longest time
without a new character with what stood on the screen then, the phases that had a time and no bar, and every line
that a library's log or warning printed.
The exit code is 1 where a silence was longer than the limit or a foreign line was found, else that of the command.
tools/silence_commands.py does this for every command.
"""

import argparse
import fcntl
import os
import pty
import re
import resource
import select
import signal
import struct
import sys
import termios
import time
from dataclasses import dataclass, field
from pathlib import Path

LIMIT = 10.0  # seconds
ROWS, COLUMNS = 40, 120
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# What a library prints of itself: a warning with its place, a log line with its level.
FOREIGN = (
    re.compile(r"^\S+\.py:\d+: \w*Warning: "),
    re.compile(r"^\s*warnings\.warn\("),
    re.compile(r"^\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d"),
    re.compile(r"^(WARNING|INFO|ERROR|DEBUG)\b"),
    re.compile(r"^W\d{4} "),
    re.compile(r"torchvision|safety.checker|were passed to|No LoRA keys|config attributes|image processor", re.I),
    re.compile(r"is deprecated|will be removed in|FutureWarning|UserWarning"),
)
# The line of hf_unlearn.cli.watch where nothing else is printed: a phase and its time.
PHASE = re.compile(r"^(?P<name>[^|%]+): (?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d\d)(?:, about \S+ left)?$")


@dataclass
class Recording:
    """What a command printed and when.

    seconds, cpu: on the clock, and of all its processes on a core.
    silences: (seconds, the last line before it), the longest first.
    phases: how many seconds each phase without a bar was seen to last.
    foreign: lines that are not ours.
    """

    code: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    text: str = ""
    silences: list[tuple[float, str]] = field(default_factory=list)
    phases: dict[str, int] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)

    @property
    def silence(self) -> float:
        """The longest silence, in seconds."""
        return self.silences[0][0] if self.silences else 0.0


def record(
    command: list[str], echo: bool = False, until: str | None = None, folder: str | Path | None = None
) -> Recording:
    """Run a command in a terminal of its own, 120 columns wide, and note when it printed what; blanks are silence.

    Args:
        echo: show it while it runs.
        until: text at which the command is interrupted as by Ctrl-C, of one that serves and does not end.
        folder: where it runs; the default is here.
    """
    found, cpu = Recording(), _cpu_of_children()
    child, screen = pty.fork()
    if child == 0:
        # A new terminal has no columns, in which bars are empty.
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        try:
            os.chdir(folder or ".")
            os.execvp(command[0], command)
        except OSError as error:
            print(f"{command[0]} cannot be run: {error.strerror}")
            os._exit(127)
    start = last = time.monotonic()
    while True:
        select.select([screen], [], [], 60)
        try:
            part = os.read(screen, 65536)
        except OSError:  # what Linux raises when the other end is closed
            part = b""
        text, now = part.decode(errors="replace"), time.monotonic()
        if ESCAPES.sub("", text).strip() or not part:
            found.silences.append((now - last, last_line(found.text)))
            last = now
        if not part:
            break
        found.text += text
        if until is not None and until in found.text:
            until = None
            os.kill(child, signal.SIGINT)
        if echo:
            sys.stdout.write(text)
            sys.stdout.flush()
    _, status = os.waitpid(child, 0)
    found.code, found.seconds = os.waitstatus_to_exitcode(status), time.monotonic() - start
    found.cpu = _cpu_of_children() - cpu
    found.silences.sort(reverse=True)
    found.foreign, found.phases = foreign_lines(found.text), phases(found.text)
    return found


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def phases(text: str) -> dict[str, int]:
    """Phases that were on the screen without a bar, with the longest time in seconds that was shown."""
    found: dict[str, int] = {}
    for line in lines_of(text):
        if seen := PHASE.match(line):
            part = {name: int(seen[name] or 0) for name in ("hours", "minutes", "seconds")}
            seconds = 3600 * part["hours"] + 60 * part["minutes"] + part["seconds"]
            found[seen["name"]] = max(found.get(seen["name"], 0), seconds)
    return found


def last_line(text: str) -> str:
    """The last line on the screen that is not empty."""
    return next(reversed(lines_of(text[-4000:])), "")


def lines_of(text: str) -> list[str]:
    """What stood in a line of the screen at one time, one after the other, without colours and empty lines."""
    lines = (line.strip() for line in re.split(r"[\r\n]+", ESCAPES.sub("", text)))
    return [line for line in lines if line]


def foreign_lines(text: str) -> list[str]:
    """Lines that a library printed, each once."""
    return list(dict.fromkeys(line for line in lines_of(text) if any(kind.search(line) for kind in FOREIGN)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of silence that are too long")
    parser.add_argument("--log", help="file for everything that was printed")
    parser.add_argument("--echo", action="store_true", help="show it while it runs")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command")
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("name a command behind --")
    found = record(command, options.echo)
    if options.log:
        Path(options.log).write_text(found.text)
    print(f"{found.seconds:.0f} s, {found.cpu:.0f} s of CPU, exit code {found.code}")
    for seconds, line in found.silences[:5]:
        print(f"silent for {seconds:5.1f} s after: {line[:150]}")
    for name, seconds in found.phases.items():
        print(f"no bar for {seconds} s: {name}")
    for line in found.foreign:
        print(f"not ours: {line[:200]}")
    sys.exit(1 if found.silence > options.limit or found.foreign else found.code)


if __name__ == "__main__":
    main()
