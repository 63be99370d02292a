"""One request to a diffusion model, with the pictures that it is carried out on."""

from dataclasses import dataclass, field

from ...data.protocols import SizedDataset
from ..turns import Turn


@dataclass
class PictureTurn(Turn):
    """A `Turn` whose data are pictures that the model drew, and those it is given to learn.

    sets: `forget`, `learn` and `retain`, those that there are.
    """

    sets: dict[str, SizedDataset] = field(default_factory=dict)

    @property
    def learn(self) -> SizedDataset | None:
        return self.sets.get("learn")

    @property
    def forget(self) -> SizedDataset | None:
        return self.sets.get("forget")

    @property
    def remembered(self) -> SizedDataset | None:
        return self.sets.get("retain")

    @property
    def everything(self) -> SizedDataset | None:
        return None

    @property
    def holdout(self) -> SizedDataset | None:
        return None
