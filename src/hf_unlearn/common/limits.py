"""Check that numbers lie in an interval, which is written as in mathematics."""

import math
from typing import Any

SEEDS = "[0, 4294967295]"  # numpy's range
EXTENSION = 4  # times the planned outer steps, where a run that has not forgotten goes on by default


def check_limits(values: Any, **limits: str) -> None:
    """Raise a ValueError unless each named field of `values` is None or a finite number in its interval.

    check_limits(self, rank="[1, inf)", adam_beta1="[0, 1)")
    """
    for name, interval in limits.items():
        value = getattr(values, name)
        if value is None:
            continue
        low, high = (float(end) for end in interval[1:-1].split(","))
        above = value >= low if interval[0] == "[" else value > low
        below = value <= high if interval[-1] == "]" else value < high
        if not (above and below and math.isfinite(value)):
            raise ValueError(f"{name} must {_in_words(interval)}, got {value}")


def _in_words(interval: str) -> str:
    low = interval[1:-1].split(",")[0]
    if not interval.endswith("inf)"):
        return f"lie in {interval}"
    return f"be at least {low}" if interval[0] == "[" else f"be a number above {low}"
