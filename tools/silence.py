"""How long a command is silent, and which of its lines are not ours.

python tools/silence.py -- hf-unlearn ddpm --max_train_steps 3 --output_dir /tmp/x
python tools/silence.py --limit 10 --log screen.txt -- hf-unlearn sd ...

The command runs in a terminal of its own, so that bars are drawn as a person sees them. Printed are: the longest time
without a new character with what stood on the screen then, and every line that a library's log or warning printed.
The exit code is 1 where a silence was longer than the limit or a foreign line was found, else that of the command.
"""

import argparse
import os
import pty
import re
import select
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

LIMIT = 10.0  # seconds
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# What a library prints of itself: a warning with its place, a log line with its level, progress of its own.
FOREIGN = (
    re.compile(r"^\S+\.py:\d+: \w*Warning: "),
    re.compile(r"^\s*warnings\.warn\("),
    re.compile(r"^\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d"),
    re.compile(r"^(WARNING|INFO|ERROR|DEBUG)\b"),
    re.compile(r"^W\d{4} "),
    re.compile(r"torchvision|safety.checker|were passed to|No LoRA keys|config attributes|image processor", re.I),
    re.compile(r"is deprecated|will be removed in|FutureWarning|UserWarning"),
    re.compile(r"^(Loading (pipeline components|weights|checkpoint shards)|Writing model shards)"),
)


@dataclass
class Recording:
    """What a command printed and when.

    silences: (seconds, the last line before it), the longest first. foreign: lines that are not ours.
    """

    code: int = 0
    seconds: float = 0.0
    text: str = ""
    silences: list[tuple[float, str]] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def record(command: list[str], echo: bool = False) -> Recording:
    """Run a command in a terminal of its own, 120 columns wide, and note when it printed what."""
    found = Recording()
    child, screen = pty.fork()
    if child == 0:
        os.environ["COLUMNS"] = "120"
        try:
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
        now = time.monotonic()
        found.silences.append((now - last, last_line(found.text)))
        last = now
        if not part:
            break
        text = part.decode(errors="replace")
        found.text += text
        if echo:
            sys.stdout.write(text)
            sys.stdout.flush()
    _, status = os.waitpid(child, 0)
    found.code, found.seconds = os.waitstatus_to_exitcode(status), time.monotonic() - start
    found.silences.sort(reverse=True)
    found.foreign = foreign_lines(found.text)
    return found


def last_line(text: str) -> str:
    """The last line on the screen that is not empty."""
    lines = [line.strip() for line in re.split(r"[\r\n]", ESCAPES.sub("", text[-4000:]))]
    return next((line for line in reversed(lines) if line), "")


def foreign_lines(text: str) -> list[str]:
    """Lines that a library printed, each once."""
    lines = (line.strip() for line in re.split(r"[\r\n]+", ESCAPES.sub("", text)))
    return list(dict.fromkeys(line for line in lines if any(kind.search(line) for kind in FOREIGN)))


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
    print(f"{found.seconds:.0f} s, exit code {found.code}")
    for seconds, line in found.silences[:5]:
        print(f"silent for {seconds:5.1f} s after: {line[:150]}")
    for line in found.foreign:
        print(f"not ours: {line[:200]}")
    long = found.silences and found.silences[0][0] > options.limit
    sys.exit(1 if long or found.foreign else found.code)


if __name__ == "__main__":
    main()
