"""What a sequence needs of a diffusion model: keys for what requests name, pictures, and an objective."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from ...data.protocols import SizedDataset
from ...families.denoising import Denoising
from ...families.held import Held
from .standing import Words


class Painter(Words, Protocol):
    """A pipeline and what its conditions are: prompts or classes."""

    kind: ClassVar[str]  # of the conditions, for the ledger
    tag: ClassVar[str]  # of the model's card

    pipeline: Any  # it samples with the network as it is
    every: tuple[str, ...]  # the keys that are replayed from the first request on

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        ...

    def objective(self, keys: Sequence[str], anchors: Mapping[str, str], held: Held | None = None) -> Denoising:
        """The objective for these keys.

        Args:
            anchors: {key to forget: the key that it is matched to}.
        """
        ...

    def number(self, objective: Denoising, key: str) -> int:
        """The label of a key."""
        ...

    def draw(self, keys: Sequence[str], seed: int) -> Tensor:
        """One picture for each key, (N, C, h, w), as the objective takes them; picture i is drawn from seed + i."""
        ...

    def images(self, part: Any) -> SizedDataset:
        """The images that a part is learnt from, `pixel_values` (C, H, W). Raises ValueError or OSError."""
        ...

    def encoded(self, images: SizedDataset, folder: Path) -> Tensor:
        """The same as the objective takes them, (N or 2 N, C, h, w). What is kept meanwhile goes to `folder`."""
        ...

    def key_of(self, images: SizedDataset, keys: Sequence[str], position: int) -> str:
        """The key of the image at a position of `images`, one of `keys`: its caption or class, else one in turn."""
        ...
