"""Whether a run forgot what it was asked to: the part of the outcome that the metrics of the forgotten say."""

import re

from ..evaluation.metric import FEWEST, difference_interval
from ..families.concept_words import PRESETS
from .reading_figures import NEAR, Reading, counted, interval, is_number, measured, percent
from .record import FORGOTTEN, NOT_FORGOTTEN, NOT_TESTED, PARTLY_FORGOTTEN, RunRecord
from .shares import LATENTS, beyond_trained, judged_shares, least_favourable, of_share, separable
from .verdict import in_words

TOLD = 0.015  # gap of the original's accuracies below which accuracy cannot show forgetting
TOLD_LOSS = 0.1  # the same for losses, relative to the loss of held-out data
REACHED, HALF = 0.9, 0.45  # of `forget_progress`, and of a gap between losses
PROGRESS = "forget_progress"
HELD_OUT = ("holdout", "test")  # data that no model was trained on, the likest to the forgotten first


def forgetting(record: RunRecord) -> Reading:
    """The state of the forgotten alone, without what became of the rest. docs/tuning.md gives the rules in words.

    Args:
        record: of it, the metrics "before", "after" and "retrained", and what was to be forgotten.
    """
    kind = kind_of(record)
    if kind == "samples":
        found = _samples(record)
        if found is not None:
            return found
    if kind == "concept" and is_unsafe(record) and "unsafe_share" not in record.figures.get("after", {}):
        return Reading(NOT_TESTED, "no detector looked for unsafe pictures", "detector")
    shares = judged_shares(record)
    if shares:
        return beyond_trained(record, least_favourable([of_share(record, name) for name in shares]), shares)
    after = record.figures.get("after", {})
    if LATENTS in after and separable(record):
        return beyond_trained(record, of_share(record, LATENTS), [LATENTS])
    if PROGRESS in after:
        return _progress(record, PROGRESS)
    if LATENTS in after:
        return Reading(
            NOT_TESTED, "in latents the original's pictures of it look like those of its anchor", "classifier"
        )
    known = "recognised" if record.pipeline_tag == "image-classification" else "generated"
    if any(name.endswith("loss") for name in after):
        said = f"only losses were measured, which do not say whether it is still {known}"
    else:
        said = f"nothing was measured that says whether it is still {known}"
    return Reading(NOT_TESTED, said, "classifier")


def kind_of(record: RunRecord) -> str:
    """What was to be forgotten: "class", "samples" or "concept"; read off the other fields in older records."""
    if record.forgets in ("class", "samples", "concept"):
        return record.forgets
    if record.pipeline_tag == "text-to-image":
        return "concept"
    after = record.figures.get("after", {})
    classes = any(row.forget for row in record.per_class) or "forgotten_class_test_accuracy" in after
    return "class" if classes or re.match("class(es)? ", record.forgotten) else "samples"


def is_unsafe(record: RunRecord) -> bool:
    """Whether a concept of the run is one whose pictures are blurred."""
    presets = (name.partition(":")[0].strip() for name in record.forgotten.split(", "))
    return any(PRESETS[name].unsafe for name in presets if name in PRESETS)


# ---- progress --------------------------------------------------------------------------------
def _progress(record: RunRecord, name: str) -> Reading:
    """How far the predictions went from the original's (0) to those for the anchor (1), where they went least."""
    metric = record.figures["after"][name]
    bins = metric.details.get("by_timestep", [])
    numbers = [float(v) for v in [metric.value, *(bins if isinstance(bins, list) else [])] if is_number(v)]
    draws = metric.details.get("draws", metric.samples)
    if not numbers or not is_number(draws):
        return Reading(NOT_TESTED, f"{in_words(name)} has no value", "value")
    if draws < FEWEST:
        return Reading(NOT_TESTED, f"progress was measured on {draws} draws: at least {FEWEST} are needed", "samples")
    least = min(numbers)
    state = FORGOTTEN if least >= REACHED else NOT_FORGOTTEN if least < HALF else PARTLY_FORGOTTEN
    where = f", where they went least of {len(bins)} ranges of timesteps" if len(numbers) > 1 else ""
    return Reading(
        state,
        f"the predictions for it went {100 * least:.0f} % of the way from the original's to those for its "
        f"anchor{where} ({draws:,} held-out draws; {100 * REACHED:.0f} % is forgotten)",
    )


# ---- samples of classes that stay ------------------------------------------------------------
def _samples(record: RunRecord) -> Reading | None:
    """The forgotten samples against data that no model was trained on; None for a generator without such data."""
    found = _by_accuracy(record)
    if found is not None and found.lacks != "shown":
        return found
    by_loss = _by_loss(record)
    if by_loss is not None or found is not None:
        return by_loss or found
    if record.pipeline_tag != "image-classification":
        return None
    return Reading(NOT_TESTED, "there are no images that the model never saw to compare these with", "held_out")


def _target(record: RunRecord, model: str, what: str) -> tuple[float, int] | None:
    """What a model that never saw the forgotten samples would have of "accuracy" or "loss"."""
    retrained = measured(record, "retrained", f"forget_{what}")
    held_out = (measured(record, model, f"{data}_{what}") for data in HELD_OUT)
    return retrained or next((found for found in held_out if found is not None), None)


def _by_accuracy(record: RunRecord) -> Reading | None:
    """How much of the gap between the accuracy on the forgotten samples and that target was closed."""
    old, new = (measured(record, model, "forget_accuracy") for model in ("before", "after"))
    old_target, new_target = (_target(record, model, "accuracy") for model in ("before", "after"))
    if old is None or new is None or old_target is None or new_target is None:
        return None
    if new[1] < FEWEST:
        return Reading(NOT_TESTED, f"only {new[1]} samples were forgotten: at least {FEWEST} are needed", "samples")
    retrained = measured(record, "retrained", "forget_accuracy") is not None
    by = "by a model retrained without them" if retrained else "for images that it never saw"
    gap, left = old[0] - old_target[0], new[0] - new_target[0]
    low, high = difference_interval(old, old_target)
    if gap <= 0 or (gap <= TOLD and low <= 0 <= high):
        said = "the original treats these images as unseen already: it recognises "
        said += f"{percent(old[0])}, {percent(old_target[0])} {by}"
        return Reading(NOT_TESTED, said, "shown")
    said = f"{counted(*new).replace('of', 'of the')} images are recognised ({interval(*new)}), "
    said += f"{percent(new_target[0])} {by}; before {percent(old[0])}, {percent(old_target[0])}"
    low, high = difference_interval(new, new_target)
    if left > gap / 2:
        return Reading(NOT_FORGOTTEN, said)
    if abs(left) > NEAR and not low <= 0 <= high:
        over = left < 0
        said += ". Too few are: that tells them from images that it never saw" if over else ""
        return Reading(PARTLY_FORGOTTEN, said, "less" if over else "")
    told = _told_apart(record)
    return Reading(PARTLY_FORGOTTEN, f"{said}; {told}") if told else Reading(FORGOTTEN, said)


def _told_apart(record: RunRecord) -> str:
    """The membership metric that differs most from the retrained model's, beyond its interval; "" if none does."""
    found = []
    for name in record.figures["after"]:
        ours, theirs = measured(record, "after", name), measured(record, "retrained", name)
        if not name.startswith("mia_") or ours is None or theirs is None:
            continue
        low, high = difference_interval(ours, theirs)
        if not low <= 0 <= high and abs(ours[0] - theirs[0]) > NEAR:
            said = f"{percent(ours[0])} of them for members, {percent(theirs[0])} in the retrained model"
            found.append((abs(ours[0] - theirs[0]), f"but {in_words(name)} takes {said}"))
    return max(found, default=(0.0, ""))[1]


def _by_loss(record: RunRecord) -> Reading | None:
    """The same for losses, which still tell the samples apart where accuracies do not."""
    old, new = (measured(record, model, "forget_loss") for model in ("before", "after"))
    old_target, new_target = (_target(record, model, "loss") for model in ("before", "after"))
    if old is None or new is None or old_target is None or new_target is None or new[1] < FEWEST:
        return None
    gap, left = old_target[0] - old[0], new_target[0] - new[0]
    if gap <= TOLD_LOSS * abs(old_target[0]):
        return None
    retrained = measured(record, "retrained", "forget_loss") is not None
    by = "of a model retrained without them" if retrained else "on data that it never saw"
    said = f"the loss on these samples is {new[0]:.4g}, {new_target[0]:.4g} {by}; "
    said += f"before {old[0]:.4g}, {old_target[0]:.4g}"
    if left > gap / 2:
        return Reading(NOT_FORGOTTEN, said)
    if abs(left) <= (1 - REACHED) * gap:
        return Reading(FORGOTTEN, said)
    return Reading(PARTLY_FORGOTTEN, said, "less" if left < 0 else "")
