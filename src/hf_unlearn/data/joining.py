"""Several data sets as one, and samples that a run sees more often than others."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from torch.utils.data import Subset

from .images import LabelledDataset
from .pairs import labels_of, subset
from .protocols import SizedDataset


def under(dataset: SizedDataset, i: int) -> tuple[Any, int]:
    """Return the data set that holds sample `i` itself, under all subsets, and the sample's place in it."""
    held: Any = dataset
    while isinstance(held, Subset):
        held, i = held.dataset, held.indices[i]
    return held, i


class Joined(LabelledDataset):
    """The samples of several data sets, one set after the other; labels and stored content as those have them.

    Raises:
        ValueError: there is no set, or some have labels and others have not.
    """

    def __init__(self, *parts: SizedDataset):
        if not parts:
            raise ValueError("nothing to join: give at least one data set")
        self.parts = parts
        found = [labels_of(part) for part in parts]
        if len({part is None for part in found}) > 1:
            raise ValueError("some of the joined data sets have labels and others have not: give them all labels")
        self._labels = None if found[0] is None else [label for part in found for label in part or ()]
        self.ends = [sum(map(len, parts[: k + 1])) for k in range(len(parts))]

    def __len__(self) -> int:
        return self.ends[-1]

    def _place(self, i: int) -> tuple[SizedDataset, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"position {i} of {len(self)} samples")
        k = next(k for k, end in enumerate(self.ends) if i < end)
        return self.parts[k], i - (self.ends[k - 1] if k else 0)

    def __getitem__(self, i: int) -> Any:
        part, place = self._place(int(i))
        return part[place]

    @property
    def labels(self) -> list[int] | None:
        return self._labels

    def stored_bytes(self, positions: Sequence[int]) -> Iterator[bytes]:
        for i in positions:
            part, place = under(*self._place(int(i)))
            if isinstance(part, LabelledDataset):
                yield from part.stored_bytes([place])
            else:  # items that are stored nowhere else
                yield part[place]["pixel_values"].numpy().tobytes()


def seen_more(dataset: SizedDataset, positions: Collection[int], times: int) -> Subset:
    """Return `dataset` with the samples at `positions` in `times` times: a run sees them that much more often.

    Repeats stand at the end, one round after the other, so that the places of all other samples stay.

    Raises:
        ValueError: `times` is below 1, or a position is out of range.
    """
    if times < 1:
        raise ValueError(f"times must be at least 1, got {times}")
    outside = [i for i in positions if not 0 <= i < len(dataset)]
    if outside:
        raise ValueError(f"positions {outside[:5]} are out of range: the data has {len(dataset)} samples")
    return subset(dataset, [*range(len(dataset)), *sorted(positions) * (times - 1)])
