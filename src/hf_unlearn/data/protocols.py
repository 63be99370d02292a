"""What a data set must offer: a length and items by position."""

from typing import Any, Protocol


class SizedDataset(Protocol):
    """A data set with a known length: torch's `Subset`, a `datasets.Dataset`, a list, and all that this package makes.

    torch's `Dataset` declares no `__len__`, so a type checker refuses `len(dataset)` for it.
    Items are dicts with "pixel_values" and, where the data has them, "labels".
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...
