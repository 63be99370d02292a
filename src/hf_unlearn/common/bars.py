"""What goes on, for a person who waits: progress bars, on a terminal and in the first process only; and phases."""

from collections.abc import Callable, Iterable
from typing import Any

from .processes import is_first

Listener = Callable[[str, float | None], None]
_listeners: list[Listener] = []


def bar(items: Iterable[Any], what: str, total: int | None = None) -> Any:
    """Go through `items` with a bar that says what is done and how long it still takes; it leaves no line behind."""
    from tqdm import tqdm

    phase(what)  # until the first item is done
    return tqdm(items, desc=what, total=total, disable=None if is_first() else True, leave=False, mininterval=0.5)


def phase(name: str, expected: float | None = None) -> None:
    """Say what begins now; nobody hears it but a command on a terminal, which shows it where nothing is printed.

    Args:
        expected: seconds that it took last time, where that is known.
    """
    for heard in _listeners:
        heard(name, expected)


def listen(listener: Listener) -> Callable[[], None]:
    """Have `listener` called with every phase and its expected seconds. Return what ends that."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)
