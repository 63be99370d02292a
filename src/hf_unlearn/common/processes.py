"""Which of several processes this one is, without loading anything that takes long."""

import os


def is_first() -> bool:
    """Return whether this is the first process, or the only one; a launcher says so before they have joined."""
    return int(os.environ.get("RANK", 0)) == 0


def say(text: str) -> None:
    """Print a line, once where there are several processes."""
    if is_first():
        print(text, flush=True)
