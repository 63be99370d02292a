"""Progress bars: one look, on a terminal only, and in the first process only."""

from collections.abc import Iterable
from typing import Any

from .processes import is_first


def bar(items: Iterable[Any], what: str, total: int | None = None) -> Any:
    """Go through `items` with a bar that says what is done and how long it still takes; it leaves no line behind."""
    from tqdm import tqdm

    return tqdm(items, desc=what, total=total, disable=None if is_first() else True, leave=False, mininterval=0.5)
