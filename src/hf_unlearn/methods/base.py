"""The contract between a method and the loop: two functions, and seven names of the loop that they may use."""

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor

from ..families import Baseline

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from ..families import Objective
    from ..saliency.masks import Masks


class Loop(Protocol):
    """All that a method sees of the trainer."""

    progress: float  # share of the outer steps already done, in [0, 1)
    parameters: list[Tensor]  # the trained weights

    def losses(self, batch: dict[str, Tensor], shift: list[Tensor] | None = None) -> Tensor:
        """Per-sample losses (B,) of the trained model, with gradient; `shift`: at the weights minus these tensors."""

    def matching_losses(self, batch: dict[str, Tensor], to: str, strength: float = 1.0, **options: Any) -> Tensor:
        """(B,) distance to something without gradient: to the sample's "anchor" (another label), to what the
        "original" model predicts (declare `needs_original`), or what else `Objective.match` knows. `options` go to
        the objective's forward (a classifier takes `temperature`)."""

    def fast_step(self, loss: Tensor, forget: bool, max_norm: float | None = None, scale: float = 1.0) -> None:
        """Backward, clip and step now. `forget=True`: masked, with the forget optimizer, `scale` times its rate."""

    def baseline(self, batch: dict[str, Tensor]) -> Baseline:
        """What the original model loses on these samples at these timesteps."""

    def record(self, name: str, value: Tensor) -> None:
        """Average `value` into the log until the next log line."""


@dataclass
class Method:
    """Base of all methods. A subclass is a dataclass: its fields are the CLI flags and the card's entries.

    Class attributes say what the trainer must prepare; SFRon overrides them by fields.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    streams: ClassVar[tuple[str, ...]] = ("forget", "retain")  # data that the batches must hold
    fast_steps: ClassVar[bool] = False  # takes optimizer steps of its own before the final one
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    trains: ClassVar[bool] = True  # False: `edit` is all there is, no step is taken
    masks_every_step: ClassVar[bool] = False  # the masks hold for the final step too, not only for forget steps
    needs_original: ClassVar[bool] = False  # a frozen copy of the original network stays in memory, no more than that
    shards: ClassVar[bool] = True  # works where each process holds a part of every weight; False: it reads them whole
    family: ClassVar[str] = ""  # the only kind of model it works for, one of `Objective.kinds`; "" is all
    forget_images: ClassVar[str] = "concept"  # what forget images are synthesised from: the concept or its anchor

    @property
    def retain_batches(self) -> int:
        """Retain batches that one outer step consumes."""
        return 1

    @property
    def gradients(self) -> float:
        """Batch gradients (a forward and backward of one batch) that an outer step takes, for budgets."""
        return len(self.streams)

    @property
    def optimizer(self) -> dict[str, Any]:
        """`forget_optim`, `forget_learning_rate`, `slow_rate`, `slow_form` and `hard_mask` for the trainer."""
        return {
            "forget_optim": "shared",
            "forget_learning_rate": None,
            "slow_rate": 1.0,
            "slow_form": "lookahead",
            "hard_mask": True,
        }

    @property
    def needs_baseline(self) -> bool:
        return False

    def prepare(self, objective: "Objective") -> None:
        """Raise ValueError, with what to set, if the options do not fit the model. Called once, at construction."""
        if self.family and self.family not in objective.kinds:
            raise ValueError(f"{self.name} works for {self.family} models only: choose another method")
        numbers = {f.name: getattr(self, f.name) for f in fields(self)}
        wrong = [n for n, value in numbers.items() if isinstance(value, float) and not math.isfinite(value)]
        if wrong:
            raise ValueError(f"{wrong[0]} must be a finite number, got {numbers[wrong[0]]}")

    def masks(self, objective: "Objective", forget: "Dataset", retain: "Dataset", seed: int) -> "Masks | None":
        """Weight masks computed from the original model before the first step, or None for all weights."""
        return None

    def edit(self, objective: "Objective", forget: "Dataset", retain: "Dataset", seed: int) -> None:
        """Change the original weights in place before the first step (or instead of any, with `trains = False`)."""

    def begin(self, objective: "Objective", forget: "Dataset", retain: "Dataset", seed: int) -> None:
        """Keep what the steps need of the original weights. Called before they move, and again on resume."""

    def before_step(self, loop: Loop, batch: dict[str, Any]) -> None:
        """Fast optimizer steps ahead of the final one."""

    def loss(self, loop: Loop, batch: dict[str, Any]) -> Tensor:
        """Scalar loss of the final step. `batch["forget"]` is a batch, `batch["retain"]` a list of them."""
        raise NotImplementedError
