"""What became of the retained: whether a run broke it, and which metrics of it got worse than noise explains.

A share counts beyond its interval and a number of points, any other metric beyond a ratio, never by rounding.
"""

from dataclasses import dataclass

from ..evaluation.metric import ANCHOR_SHARE, difference_interval, is_share
from .reading_figures import is_number, measured, percent
from .record import RunRecord
from .shares import separable
from .verdict import in_words, shown

WORSE, BROKEN = 0.01, 0.05  # falls of a share: a failure on the card, and the end of the model's use
WORSE_RATIO, BROKEN_RATIO = 1.05, 1.5  # the same for losses and distances, against the original's or a retrained one's
LATENT_DISTANCE, DRIFT = "latent_distance_retain", "retain_drift"


@dataclass(frozen=True)
class Change:
    """What became of one metric of the retained: the sentence, and whether that counts."""

    metric: str
    said: str
    worse: bool
    broken: bool


def broken(record: RunRecord) -> list[str]:
    """Sentences on what of the retained broke, shares first; empty where nothing did."""
    return [change.said for change in _broken(record)]


def worse(record: RunRecord) -> list[str]:
    """Names of the metrics of the retained that got worse beyond their interval or tolerance."""
    return [change.metric for change in changes(record) if change.worse or change.broken]


def broke(record: RunRecord) -> list[str]:
    """Names of the metrics of the retained that broke, shares first."""
    return [change.metric for change in _broken(record)]


def only_the_anchor(record: RunRecord) -> bool:
    """Whether nothing broke but what the forgotten became."""
    return broke(record) == [ANCHOR_SHARE]


def fell(before: float, after: float, samples: int | None, points: float) -> bool:
    """Whether a share fell by more than `points` at all, and beyond the interval where the samples were counted."""
    if before - after <= points:
        return False
    if samples is None or samples < 1 or not 0 <= after <= before <= 1:
        return True
    return difference_interval((before, samples), (after, samples))[0] > 0


def diverged(record: RunRecord) -> str:
    """What is no finite number any more, in words; "" where all is."""
    if record.log and "loss" in record.log[-1] and not is_number(record.log[-1]["loss"]):
        return "the last loss of the training is no finite number"
    for name, metric in record.figures.get("after", {}).items():
        old = record.value("before", name)
        if not is_share(name) and is_number(old) and not is_number(metric.value):
            return f"{in_words(name)} is no finite number after it"
    return ""


def changes(record: RunRecord) -> list[Change]:
    """A change for each metric of the retained that says something about the unlearned model."""
    after = record.figures.get("after", {})
    names = [name for name in after if record.role(name).part == "retain" or name == DRIFT]
    shares = any(_share(record, name) is not None for name in names if name != ANCHOR_SHARE)
    found = (_change(record, name, shares) for name in names)
    return [change for change in found if change is not None]


def _change(record: RunRecord, name: str, shares: bool) -> Change | None:
    if name == DRIFT:
        return _limit(record, name, record.figures["after"][name].details.get("limit"))
    if name == ANCHOR_SHARE and not separable(record, name):
        return None
    if name == LATENT_DISTANCE:
        return _limit(record, name, record.figures["after"][name].details.get("between_prompts"))
    return _share(record, name) if is_share(name) else _ratio(record, name, shares)


def _share(record: RunRecord, name: str) -> Change | None:
    """A share against the original's, or the retrained model's where that lost some too."""
    before, after = measured(record, "before", name), measured(record, "after", name)
    if not is_share(name) or record.role(name).less_is_better is not False or before is None or after is None:
        return None
    retrained = measured(record, "retrained", name)
    reference = before if retrained is None else min(before, retrained)
    low, high = difference_interval(reference, after)
    aside = "" if reference == before else f", {percent(reference[0])} after retraining"
    what = "the share of the anchor's own pictures that show the anchor" if name == ANCHOR_SHARE else in_words(name)
    said = (
        f"{what} fell from {percent(before[0])} to {percent(after[0])}{aside} (95 % interval of the fall "
        f"{100 * low:.0f} to {100 * high:.0f} points)"
    )
    return Change(name, said, reference[0] - after[0] > WORSE and low > 0, low > BROKEN)


def _ratio(record: RunRecord, name: str, shares: bool) -> Change | None:
    """A loss, a distance or a score by its ratio. A loss breaks nothing where shares were measured, which say more."""
    before, after, less = record.value("before", name), record.value("after", name), record.role(name).less_is_better
    if less is None or not is_number(before) or not is_number(after) or before <= 0:
        return None
    retrained = record.value("retrained", name)
    reference = before
    if is_number(retrained) and retrained > 0:
        reference = max(before, retrained) if less else min(before, retrained)
    ratio = after / reference if less else reference / after if after > 0 else float("inf")
    said = f"{in_words(name)} {'rose' if less else 'fell'} from {shown(name, reference)} to {shown(name, after)}"
    return Change(name, said, ratio > WORSE_RATIO, ratio > BROKEN_RATIO and not (shares and name.endswith("loss")))


def _limit(record: RunRecord, name: str, limit: object) -> Change | None:
    """A metric that has its limit beside it; for pictures, the distance to those of another prompt."""
    value = record.value("after", name)
    if not is_number(value) or not is_number(limit):
        return None
    most = shown(name, float(limit))
    of = f"and pictures of different prompts are {most} apart" if name == LATENT_DISTANCE else f"its limit {most}"
    said = f"{in_words(name)} is {shown(name, value)}, {of}"
    return Change(name, said, value > limit, value > limit)


def _broken(record: RunRecord) -> list[Change]:
    """What broke, shares first."""
    found = [change for change in changes(record) if change.broken]
    return sorted(found, key=lambda change: not is_share(change.metric))
