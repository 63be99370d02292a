"""What variants do for unlearning: slow-learnt retained samples are seen more often, few retained ones become many."""

from collections.abc import Sequence

import torch
from torch.utils.data import Subset

from ..data.images import ArrayDataset
from ..data.joining import Joined, seen_more
from ..data.protocols import SizedDataset
from .generators import Generator
from .slow import Slow


def repairing(retain: SizedDataset, slow: Slow, variants: SizedDataset | None = None, times: int = 2) -> Subset:
    """Return a retain set whose slow-learnt samples, and variants of them, a run sees `times` times as often.

    What approximate unlearning damages first are samples that the model had barely learnt: that is a conjecture, which
    docs/augmentation.md measures.

    Args:
        retain: The samples to keep.
        slow: What `find_slow_learnt` found in them.
        variants: Of the slow-learnt ones; None for none.
        times: How often they are seen beside once for the others.
    """
    everything = retain if variants is None else Joined(retain, variants)
    return seen_more(everything, [*slow.positions, *range(len(retain), len(everything))], times)


def standing_in(few: SizedDataset, *others: SizedDataset) -> Joined:
    """Return the few retained samples that are left, with variants of them, or generated images, for the rest."""
    return Joined(few, *others)


def blanks(generator: Generator, classes: Sequence[int]) -> ArrayDataset:
    """Return a grey picture for each class: what `augment` draws new images of, at strength 1, from nothing.

    A class of which no retained image is left needs them. Where the labels of the retain set lack a class, that class
    counts as forgotten as a whole.
    """
    return ArrayDataset(torch.zeros(len(classes), generator.channels, *generator.size), torch.tensor(list(classes)))
