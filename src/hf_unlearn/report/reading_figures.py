"""What the metrics of a run say, as numbers and as a reading: what the parts of an outcome share."""

from dataclasses import dataclass
from typing import Any, TypeGuard

from ..evaluation.metric import Metric, is_share, share_interval
from .record import RunRecord

NEAR = 0.05  # a share this close to its target has reached it
SHOWN = 0.2  # share of the original's pictures below which it did not show what was to be forgotten
SEPARABLE = 0.8  # accuracy below which latents do not tell the concept from its anchor
ROUNDING = 1e-6  # by which a mean of shares may pass 0 or 1


@dataclass(frozen=True)
class Reading:
    """A state, the sentence that it rests on, and in one word what a next run would have to change.

    `lacks` is "samples", "detector", "classifier", "held_out", "before", "shown" or "value" where nothing was tested,
    "less" where more was forgotten than a model would not know that never saw it, "prompts" where what was not trained
    on was not forgotten, else "".
    """

    state: str
    said: str
    lacks: str = ""


def measured(record: RunRecord, model: str, name: str) -> tuple[float, int] | None:
    """(value, number of samples) of a metric, or None where there is no finite value of any sample."""
    metric: Metric | None = record.figures.get(model, {}).get(name)
    if metric is None or not is_number(metric.value) or metric.samples < 1:
        return None
    value = metric.number
    if is_share(name):
        if not -ROUNDING <= value <= 1 + ROUNDING:
            return None
        value = min(max(value, 0.0), 1.0)
    return float(value), metric.samples


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of a record is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def counted(share: float, samples: int) -> str:
    """A share as a count: "3 of 100"."""
    return f"{round(share * samples):,} of {samples:,}"


def interval(share: float, samples: int) -> str:
    """The 95 % interval of a share in words."""
    low, high = share_interval(share, samples)
    return f"95 % interval {100 * low:.0f} to {100 * high:.0f} %"


def percent(share: float) -> str:
    """A share in %."""
    return f"{100 * share:.1f} %"
