"""Progress bars: one look, on a terminal only, and in the first process only."""

import os
from collections.abc import Iterable
from typing import Any


def bar(items: Iterable[Any], what: str, total: int | None = None) -> Any:
    """Go through `items` with a bar that says what is done and how long it still takes; it leaves no line behind."""
    from tqdm import tqdm

    others = int(os.environ.get("RANK", 0)) != 0
    return tqdm(items, desc=what, total=total, disable=True if others else None, leave=False, mininterval=0.5)
