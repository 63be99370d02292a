"""What shares of pictures or images that still show the forgotten say: a classifier's, a detector's, or in latents."""

from ..evaluation.metric import FEWEST, HELD_OUT_PROMPTS, is_attack, is_share, share_interval
from .reading_figures import NEAR, SEPARABLE, SHOWN, Reading, counted, interval, is_number, measured
from .record import FORGOTTEN, NOT_FORGOTTEN, NOT_TESTED, PARTLY_FORGOTTEN, RunRecord
from .verdict import in_words

LATENTS = "concept_share_latents"
UNTRAINED = "prompts that nothing was trained on"


def judged_shares(record: RunRecord) -> list[str]:
    """Names of the shares of the forgotten that a classifier or a detector gave.

    A share whose name goes on where that of another ends is the same read under another sampler, on fewer samples. It
    counts where it contradicts beyond its interval.
    """
    every = record.figures.get("after", {})
    apart = (LATENTS, HELD_OUT_PROMPTS)  # ends of the names of what is read otherwise
    shares = [n for n in every if not n.endswith(apart) and is_share(n) and not is_attack(n)]
    names = [n for n in shares if record.role(n) == ("forget", True)]
    checks = {n for n in names for other in names if n.startswith(f"{other}_")}
    return [n for n in names if n not in checks or _contradicts(record, n)]


def _contradicts(record: RunRecord, name: str) -> bool:
    """Whether the whole interval of a share lies above what counts as forgotten."""
    after, retrained = measured(record, "after", name), measured(record, "retrained", name)
    return after is not None and share_interval(*after)[0] > (retrained or (0.0, 0))[0] + NEAR


def beyond_trained(record: RunRecord, read: Reading, shares: list[str]) -> Reading:
    """The reading of `shares` with what the same say of prompts that nothing was trained on, where the original shows
    it by these: those that still show it beyond their interval make the forgotten partly forgotten."""
    if read.state not in (FORGOTTEN, PARTLY_FORGOTTEN):
        return read
    said = []
    for name in (f"{share}{HELD_OUT_PROMPTS}" for share in shares):
        before, after = measured(record, "before", name), measured(record, "after", name)
        if before is None or after is None or before[0] < SHOWN or not separable(record, name):
            continue
        said.append(f"{counted(*after)} of {UNTRAINED}")
        if read.state == FORGOTTEN and _contradicts(record, name):
            told = f"{counted(*after)} pictures of {UNTRAINED} still show it ({interval(*after)}), "
            told += f"{counted(*before)} before; of those that were trained on {read.said}"
            return Reading(PARTLY_FORGOTTEN, told, "prompts")
    return Reading(read.state, "; ".join([read.said, *said]), read.lacks)


def separable(record: RunRecord, name: str = LATENTS) -> bool:
    """Whether latents tell the concept's pictures from those of its anchor; if that was not measured, they may."""
    told = record.figures["after"][name].details.get("separable")
    return not is_number(told) or told >= SEPARABLE


def least_favourable(readings: list[Reading]) -> Reading:
    """The least favourable of those that tested it; else one of the others, too few samples last."""
    order = (NOT_FORGOTTEN, PARTLY_FORGOTTEN, FORGOTTEN, NOT_TESTED)
    return min(readings, key=lambda reading: (order.index(reading.state), reading.lacks == "samples"))


def of_share(record: RunRecord, name: str) -> Reading:
    """How much of the way from the original's share to that of a retrained model, or to none, was gone."""
    after, retrained = measured(record, "after", name), measured(record, "retrained", name)
    before = measured(record, "before", name)
    if before is None and name == LATENTS and after is not None:
        before = (1.0, after[1])  # the original's pictures are nearest to themselves
    things, verb = _words(record, name)
    if after is None:
        return Reading(NOT_TESTED, f"{in_words(name)} has no value", "value")
    if after[1] < FEWEST:
        return Reading(NOT_TESTED, f"only {after[1]} {things} were looked at: at least {FEWEST} are needed", "samples")
    if before is None:
        return Reading(NOT_TESTED, f"{in_words(name)} of the original was not measured", "before")
    target = retrained[0] if retrained is not None else 0.0
    if before[0] < SHOWN or share_interval(*before)[1] <= target + NEAR:
        missed = counted(1 - before[0], before[1])
        return Reading(NOT_TESTED, f"the original did not show it in {missed} {things}", "shown")
    fallen = (before[0] - after[0]) / (before[0] - target) if before[0] > target else 0.0
    reached = after[0] <= target + NEAR
    state = FORGOTTEN if reached else NOT_FORGOTTEN if fallen < 0.5 else PARTLY_FORGOTTEN
    said = f"{counted(*after)} {things} {verb} ({interval(*after)}), {counted(*before)} before"
    return Reading(
        state, said if retrained is None else f"{said} and {counted(*retrained)} after retraining without it"
    )


def _words(record: RunRecord, name: str) -> tuple[str, str]:
    """What was looked at, and what those do that were not forgotten."""
    if name == LATENTS:
        return "pictures", "still show it, read in latents"
    if record.pipeline_tag != "image-classification":
        return "pictures", "still show it"
    return ("held-out images of it" if "test" in name else "images of it"), "are still recognised"
