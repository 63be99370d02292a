"""The contract between a method and the trainer: what a method says of itself, and what a step gives it."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from typing_extensions import Self

from ..data.protocols import SizedDataset
from ..data.streaming import RetainStream
from ..families import Objective
from ..saliency.masks import Masks
from .parts import Above as Above
from .parts import Batch as Batch
from .parts import Losses as Losses
from .parts import OptimizerSpec as OptimizerSpec
from .parts import Samples as Samples
from .seen import OWN as OWN
from .seen import Step as Step

RetainData = SizedDataset | RetainStream


def flag(default: Any, text: str) -> Any:
    """A hyper-parameter: `text`, a whole sentence, is its help on the command line."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Method:
    """Base of all methods. A subclass is a frozen dataclass: its fields are the CLI flags and the card's entries.

    Class attributes say what the trainer must prepare. What a run adds is returned by `begin` and kept by the step,
    so that one method object may be used for many runs.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    streams: ClassVar[tuple[str, ...]] = ("forget", "retain")  # data that the batches must hold
    presets: ClassVar[dict[str, dict[str, Any]]] = {}  # values of the fields, by what the field `preset` says

    trains: ClassVar[bool] = True  # False: `edit` is all there is, no step is taken
    masks_every_step: ClassVar[bool] = False  # the masks hold for the final step too, not only for forget steps
    learns: ClassVar[bool] = False  # takes data to learn too, where it is given
    shards: ClassVar[bool] = True  # works where each process holds a part of every weight; False: it reads them whole
    family: ClassVar[str] = ""  # the only kind of model it works for, one of `Objective.kinds`; "" is all
    forget_images: ClassVar[str] = "concept"  # what forget images are synthesised from: concept, anchor or both

    def __new__(cls, *args: Any, **values: Any) -> Self:
        """Note which fields are given: a preset fills the others only."""
        made = super().__new__(cls)
        object.__setattr__(made, "_given", {*[f.name for f in fields(cls)][: len(args)], *values})
        return made

    def __post_init__(self) -> None:
        """Fill in the preset and refuse words that are no choice. An own `__post_init__` begins with this one."""
        given = self.__dict__.pop("_given")
        if self.presets:
            preset = {f.name: getattr(self, f.name) for f in fields(self)}["preset"]
            if preset not in self.presets:
                raise ValueError(f"preset {preset!r} is not one of {', '.join(self.presets)}")
            for name, value in self.presets[preset].items():
                if name not in given:
                    object.__setattr__(self, name, value)
        for name, allowed in _choices(type(self)).items():
            if getattr(self, name) not in allowed:
                words = ", ".join(str(word) for word in allowed if word is not None)
                raise ValueError(f"{name} must be one of {words}, got {getattr(self, name)!r}")

    @property
    def fast_steps(self) -> bool:
        """Whether it takes optimizer steps of its own before the final one."""
        return False

    @property
    def finds_strength(self) -> bool:
        """Whether forget steps say how far they are from their end (`fast_step`'s `above`), so that no learning rate
        is needed."""
        return False

    @property
    def floor(self) -> float:
        """Share of the original's distance from the end at which the forget loss says "forgotten", for a method that
        `finds_strength`."""
        return 0.1

    @property
    def floors(self) -> dict[str, float]:
        """The same for each kind of step that it finds the strength of, "forget" or "learn"."""
        return {"forget": self.floor}

    @property
    def equal_steps(self) -> bool:
        """Whether the retain steps of a run that finds its strength are as long as its forget steps
        (`training.strength.Plan`)."""
        return False

    @property
    def synthesised_from(self) -> str:
        """What forget images are synthesised from in a run: `forget_images`, unless the options say otherwise."""
        return self.forget_images

    @property
    def still(self) -> bool:
        """Whether the network is trained in eval mode: without dropout, and with batch statistics as they are."""
        return False

    @property
    def needs_unseen(self) -> bool:
        """Whether it uses what a classifier would say of its forget samples, had it never seen them."""
        return False

    def at_rate(self) -> Self:
        """This method for a run whose learning rate is given."""
        return self

    @property
    def retain_batches(self) -> int:
        """Retain batches that one outer step consumes."""
        return 1

    @property
    def learn_batches(self) -> int:
        """Batches of data to learn that one outer step consumes, where there are such data."""
        return 1

    @property
    def batch_gradients(self) -> float:
        """Batch gradients (a forward and backward of one batch) that an outer step takes, for budgets."""
        return len(self.streams)

    @property
    def optimizer(self) -> OptimizerSpec:
        """What the trainer builds its optimizer from."""
        return OptimizerSpec()

    @property
    def second_order(self) -> bool:
        """Whether a step differentiates a gradient, which activations that are computed again do not allow."""
        return False

    @property
    def reads_whole_weights(self) -> bool:
        """Whether a step reads whole weights, so that no process may hold a part of them only."""
        return not self.shards

    @property
    def needs_original(self) -> bool:
        """Whether a frozen copy of the original network stays in memory."""
        return False

    @property
    def needs_baseline(self) -> bool:
        """Whether the original's losses on forget data are measured before the first step."""
        return False

    @property
    def needs_levels(self) -> bool:
        """Whether the original's losses on learn and on retained samples are measured before the first step."""
        return False

    def for_data(self, names: Collection[str]) -> "Method":
        """This method for a run that is given these sets, some of "learn", "forget" and "retain".

        Raises:
            ValueError: it needs one that is not there, or can make nothing of data to learn.
        """
        for name in self.streams:
            if name not in names:
                raise ValueError(f"{self.name} needs {name} data: pass {name}_dataset")
        if "learn" in names and not self.learns:
            raise ValueError(f"{self.name} learns no new data: leave learn_dataset out, or take the method clu")
        return self

    def resolved(self, objective: Objective) -> "Method":
        """This method for one model: a copy in which every "auto" is decided.

        Raises:
            ValueError: the options do not fit the model; it says what to set.
        """
        if self.family and self.family not in objective.kinds:
            raise ValueError(f"{self.name} works for {self.family} models only: choose another method")
        numbers = {f.name: getattr(self, f.name) for f in fields(self)}
        wrong = [n for n, value in numbers.items() if isinstance(value, float) and not math.isfinite(value)]
        if wrong:
            raise ValueError(f"{wrong[0]} must be a finite number, got {numbers[wrong[0]]}")
        return replace(self)

    def sized(self, forget: int | None, retain: int | None) -> "Method":
        """This method for sets of so many samples: a copy in which what depends on their sizes is decided.

        Args:
            forget, retain: numbers of samples; None where there is no such set, or it is a stream.

        Raises:
            ValueError: the options do not fit these sizes; it says what to set.
        """
        return self

    def compute_masks(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> Masks | None:
        """Weight masks computed from the original model before the first step, or None for all weights."""
        return None

    def masks_for(self, objective: Objective, sets: Mapping[str, Any], seed: int) -> Masks | None:
        """`compute_masks` by the run's sets; a method that learns reads sets["learn"] too."""
        return self.compute_masks(objective, sets["forget"], sets["retain"], seed)

    def edit(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> None:
        """Change the original weights in place before the first step (or instead of any, see `EditMethod`)."""

    def begin(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> Any:
        """Return what the steps need of the original weights: they find it in `step.state`.

        Called before the weights move, and again on resume.
        """
        return None

    def before_step(self, step: Step, batch: Batch) -> Losses | None:
        """Take fast optimizer steps ahead of the final one, and return what to log of them."""
        return None

    def loss(self, step: Step, batch: Batch) -> Losses:
        """Losses of the final step, whose `scalar` is differentiated."""
        raise NotImplementedError(f"{type(self).__name__} has no loss: define it, or derive from EditMethod")


@dataclass(frozen=True)
class EditMethod(Method):
    """Base of methods that change the weights once, by `edit`, and take no step."""

    trains: ClassVar[bool] = False

    def edit(self, objective: Objective, forget: SizedDataset, retain: RetainData, seed: int) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not say how it edits the weights: define edit")


def _choices(cls: type[Method]) -> dict[str, tuple[Any, ...]]:
    """The words that each field annotated as `Literal[...]`, or as that or None, may hold."""
    found = {}
    annotations = get_type_hints(cls)
    for name in (f.name for f in fields(cls)):
        kind = annotations[name]
        parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
        if words:
            found[name] = (*words, None) if type(None) in parts else tuple(words)
    return found
