"""What the metrics of a run say, in one sentence that says no more than they do."""

from ..evaluation.metric import ANCHOR_SHARE, is_attack, is_share
from .record import RunRecord


def limits(record: RunRecord) -> str:
    """What the metrics of a run do not say."""
    if any(is_attack(name) for name in record.figures.get("after", {})):
        return "Metrics say what was measured and which attacks were run, not that another attack brings nothing back."
    said = "Metrics say what was measured, not that the forgotten data cannot be recovered by relearning or an attack"
    return f"{said}: hf-unlearn attack tries it."


def shown(metric: str, value: float | None) -> str:
    """A value as a person reads it: shares in %, four digits of anything else, a dash for what was not measured."""
    if value is None:
        return "–"
    return f"{value:.1%}" if is_share(metric) else f"{value:.4g}"


def in_words(metric: str) -> str:
    """The name of a metric with blanks."""
    return metric.replace("_", " ")


def headline_metric(record: RunRecord, part: str) -> str | None:
    """The metric of the unlearned model that speaks for "forget" or "retain"; None where nothing was measured.

    A share comes before anything else, and a metric with a better direction before one without.
    """
    after = record.figures.get("after", {})
    known = [name for name in after if after[name].value is not None and not is_attack(name)]
    names = [name for name in known if record.role(name).part == part]
    return min(names, key=lambda name: _rank(record, name), default=None)


def _rank(record: RunRecord, name: str) -> tuple[bool, ...]:
    return name == ANCHOR_SHARE, not is_share(name), record.role(name).less_is_better is None


def verdict(record: RunRecord) -> str:
    """One sentence: what of the forget and of the retain part changed, from what to what, over how many samples."""
    names = [name for part in ("forget", "retain") if (name := headline_metric(record, part))]
    if not names:
        return f"Nothing was measured after unlearning {record.forgotten}."
    said = [_change(record, names[0], "a model retrained without that data"), *(_change(record, n) for n in names[1:])]
    return f"After unlearning {record.forgotten}, {' and '.join(said)}."


def _change(record: RunRecord, name: str, other: str = "the retrained one") -> str:
    before, after = record.value("before", name), record.value("after", name)
    new, old = shown(name, after), shown(name, before)
    if before is None or after is None:
        moved = f"is {new}"
    elif new == old:
        moved = f"is {new}, as before"
    else:
        moved = f"{'fell' if after < before else 'rose'} from {old} to {new}"
    about = [f"{record.figures['after'][name].samples:,} samples"]
    retrained = record.value("retrained", name)
    if retrained is not None:
        about.append(f"{other}: {shown(name, retrained)}")
    return f"{in_words(name)} {moved} ({'; '.join(about)})"
