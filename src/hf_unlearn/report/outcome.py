"""What a run came to: one state, one sentence of evidence, one thing to try. Every place that shows it asks here.

FORGOTTEN, PARTLY FORGOTTEN, NOT FORGOTTEN and NOT TESTED say what `forgetting` read off the metrics of the forgotten.
BROKE THE REST outranks the first three, where `retained` finds that what should stay did not. FORGOTTEN, NOT REMOVED
takes the place of FORGOTTEN, where `recovery` finds an attack that brings it back. docs/tuning.md gives the rules in
words; their numbers are constants of those files.

1. A class, a concept, a style or the images of a thing: the share of a classifier or a detector, else that of seeds
   whose picture is still nearest to the concept's in latents, else the progress from the original to the anchor. A
   share within 5 points of the retrained model's, or of 0, is FORGOTTEN; one that fell by less than half of the way is
   NOT FORGOTTEN; between the two is PARTLY FORGOTTEN. Fewer than 30 samples, or an original that did not show it, is
   NOT TESTED. A loss alone is NOT TESTED. Prompts that nothing was trained on make FORGOTTEN PARTLY FORGOTTEN where
   the same share of theirs lies above the target beyond its interval.
2. Samples of classes that stay: the gap between their accuracy (or loss) and that of data which the model never saw,
   or that of a retrained model on them. Half of it closed is the border of NOT FORGOTTEN, within 5 points or the
   interval is FORGOTTEN, unless a membership attack still tells the model from the retrained one.
3. The rest is broken where a retained share fell by 5 points beyond its interval (Newcombe), a loss or a distance rose
   by half, a metric passed the limit beside it, or something is no finite number.
4. It is not removed where an attack that trains no weights and borrows nothing of the original finds it in more than
   its negative control and than 5 %, beyond its interval (Wilson), and in the original 20 points above that.
"""

from dataclasses import replace

from .forgetting import forgetting
from .next_step import next_step
from .reading_figures import Reading
from .record import BROKE_THE_REST, FORGOTTEN, NOT_REMOVED, NOT_TESTED, Outcome, RunRecord
from .recovery import strongest, withstood
from .retained import broken, diverged


def outcome(record: RunRecord) -> Outcome:
    """The outcome of a run, from its record alone. The field `outcome` of the record is not read."""
    read, lost, end = _attacked(record, forgetting(record)), broken(record), diverged(record)
    if end:
        said = f"the run diverged: {end}"
        return Outcome(BROKE_THE_REST, said, next_step(record, BROKE_THE_REST, read, diverged=True))
    if not lost:
        return Outcome(read.state, read.said, next_step(record, read.state, read))
    rest = "; ".join(lost)
    if read.state == NOT_TESTED:
        return Outcome(NOT_TESTED, f"{read.said}; and the rest broke: {rest}", next_step(record, NOT_TESTED, read))
    also = read.said if read.state in (FORGOTTEN, NOT_REMOVED) else f"{read.state.lower()}: {read.said}"
    return Outcome(BROKE_THE_REST, f"{rest}; {also}", next_step(record, BROKE_THE_REST, read))


def _attacked(record: RunRecord, read: Reading) -> Reading:
    """The reading with what attacks say of it, where it is FORGOTTEN; the others are not forgotten without them."""
    if read.state != FORGOTTEN:
        return read
    back = strongest(record)
    if back is not None:
        return Reading(NOT_REMOVED, f"{back.said}; {read.said}")
    held = withstood(record)
    return Reading(read.state, f"{read.said}; {held}" if held else read.said, read.lacks)


def judged(record: RunRecord) -> RunRecord:
    """The same record with its outcome in it, as the file has it."""
    return replace(record, outcome=outcome(record))
