"""The four numbers that a page and `trainer.report()` show first: forgotten, kept, recovered by attack, cost."""

from dataclasses import dataclass

from ..evaluation.metric import is_share, share_interval
from .reading_figures import measured
from .record import RunRecord
from .recovery import BACK, UNREADABLE, Recovery, recoveries, shown_value
from .retained import broke
from .verdict import headline_metric, in_words, shown


@dataclass(frozen=True)
class Tile:
    """A number with what it is, its 95 % interval ("" where there is none) and what to compare it with."""

    title: str
    value: str
    interval: str = ""
    about: str = ""
    aside: str = ""


def tiles(record: RunRecord) -> list[Tile]:
    """One tile each for what was forgotten, what was kept, what attacks recovered, and the cost."""
    return [
        _of("Forgotten", record, headline_metric(record, "forget")),
        _of("Kept", record, next(iter(broke(record)), headline_metric(record, "retain"))),
        _recovered(record),
        _cost(record),
    ]


def interval_of(metric: str, value: float | None, samples: int) -> str:
    """The 95 % interval of a share as "90.4 to 100.0 %"; "" for another metric and for no samples."""
    if value is None or not is_share(metric) or samples < 1 or not 0 <= value <= 1:
        return ""
    low, high = share_interval(value, samples)
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def length(seconds: float) -> str:
    """A time as a person says it."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.1f} s"


def _of(title: str, record: RunRecord, name: str | None) -> Tile:
    if name is None:
        return Tile(title, "not measured")
    after = record.figures["after"][name]
    others = [("before", record.value("before", name)), ("retrained", record.value("retrained", name))]
    aside = ", ".join(f"{model} {shown(name, value)}" for model, value in others if value is not None)
    found = measured(record, "after", name)
    said = interval_of(name, *found) if found is not None else ""
    return Tile(title, shown(name, after.value), said, f"{in_words(name)}, {after.samples:,} samples", aside)


def _recovered(record: RunRecord) -> Tile:
    """The attack that brings most back, of those that count; without one, of the others."""
    title, found = "Recovered by attack", recoveries(record)
    if not found:
        return Tile(title, "not attacked", about="hf-unlearn attack FOLDER tries it")
    shares = [read for read in found if not read.steps]
    if not shares:
        return Tile(title, shown_value(found[0]), about=f"{found[0].name}, of {len(found)} tried")
    read = max(shares, key=_weight)
    low, high = share_interval(*read.own)
    ceiling = read.controls["ceiling"]
    aside = f"{read.reading}" + (f", {100 * ceiling[0]:.0f} % in the original" if ceiling is not None else "")
    about = f"{read.name}, the strongest of {len(found)} tried" if len(found) > 1 else read.name
    return Tile(title, f"{100 * read.own[0]:.1f}%", f"{100 * low:.1f} to {100 * high:.1f} %", about, aside)


def _weight(read: Recovery) -> tuple[bool, bool, bool, float]:
    return read.counts, read.alone and read.reading != UNREADABLE, read.reading == BACK, read.own[0]


def _cost(record: RunRecord) -> Tile:
    cost = record.cost
    value = "not measured" if cost.seconds is None else length(cost.seconds)
    peak = "" if not cost.peak_memory_mb else f"peak memory {cost.peak_memory_mb / 1024:.1f} GB"
    steps = "" if record.training.outer_steps is None else f"{record.training.outer_steps:,} outer steps"
    return Tile("Cost", value, "", ", ".join(filter(None, (steps, peak))), cost.device or "")
