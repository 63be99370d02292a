"""Whether what requests forgot is still forgotten, as their ledger says: the states of a report, for each request."""

from ..evaluation.metric import difference_interval
from ..report.reading_figures import NEAR, Reading, counted, percent
from ..report.record import FORGOTTEN, NOT_FORGOTTEN, PARTLY_FORGOTTEN
from .ledger import Entry, Ledger

# Of a diffusion model's outputs, on four pictures a label: up to 0.19 was left in the emoji sequences of which a judge
# reads nothing any more, 0.20 to 0.30 in the one of which it reads some (docs/sequences.md).
PART, HALF = 0.2, 0.5


def readings(ledger: Ledger) -> dict[int, Reading]:
    """What the last figures say of each request that forgot something which is still to be forgotten, by its number.

    Classes: forgotten with at most 5 % of their samples recognised. Samples of classes that stay: with as many as test
    samples of what is known, 5 points more, or not more beyond chance. Prompts and generated classes: by what is left
    of the way back from their anchor, of which at most a fifth is FORGOTTEN. NOT FORGOTTEN is over half.
    """
    if not ledger.done:
        return {}
    last = ledger.done[-1].figures
    by_outputs = "left" in last
    left = last["left"] if by_outputs else last["forgotten"]
    found = {}
    for entry in ledger.done:
        value = left.get(str(entry.number))
        if value is not None:
            found[entry.number] = _of_outputs(value) if by_outputs else _of_samples(entry, value, ledger.done[-1])
    return found


def unfinished(ledger: Ledger) -> str:
    """The requests whose data is not forgotten, in one line; "" where there is none."""
    still = {number: reading for number, reading in readings(ledger).items() if reading.state != FORGOTTEN}
    asked = {entry.number: entry.asked.text for entry in ledger.done}
    return "; ".join(f"{n} ({asked[n]}) is {reading.state.lower()}: {reading.said}" for n, reading in still.items())


def _of_outputs(left: float) -> Reading:
    state = FORGOTTEN if left <= PART else NOT_FORGOTTEN if left > HALF else PARTLY_FORGOTTEN
    return Reading(state, f"{100 * left:.0f} % of the way back from its anchor")


def _of_samples(entry: Entry, share: float, last: Entry) -> Reading:
    samples = entry.samples.get("forget", 0)
    said = f"{counted(share, samples)} of its samples are recognised"
    target, tested = 0.0, 0
    if getattr(entry.asked.to_forget, "samples", ()):
        hits = [last.figures["classes"][str(label)] for label in last.figures["known"]]
        right, tested = (sum(column) for column in zip(*hits, strict=True)) if hits else (0, 0)
        target = right / tested if tested else 0.0
        said = f"{said}, {percent(target)} of test samples of what is known"
    over = share - target
    if over <= NEAR or (tested and samples and difference_interval((share, samples), (target, tested))[0] <= 0):
        return Reading(FORGOTTEN, said)
    return Reading(NOT_FORGOTTEN if over > 0.5 else PARTLY_FORGOTTEN, said)
