"""The contract of an attack: what it is given, what it returns, and what it says of itself."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor
from typing_extensions import Self

from ..common.limits import SEEDS, check_limits
from ..families.load import prepare_family

Suite = Literal["quick", "full"]


class Reader(Protocol):
    """Says of each image whether it shows the concept that an attack is after.

    A reader is an object, not a bare function: its class, its public attributes and its networks are part of the key
    under which results are kept (`common.identity.identity_of`). A dataclass or a torch module will do.
    """

    @property
    def name(self) -> str:
        """What read the images, in words for a table."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """Return (N,) bool for images (N, C, H, W) in [-1, 1]."""


@dataclass(frozen=True, eq=False)
class Target:
    """What an attack is after.

    name: of the concept or class, in words.
    asked: what the model is asked for, one after the other: prompts, or numbers of classes; none where a model takes
        no condition.
    images: (N, C, H, W) in [-1, 1] that show it; a classifier's are as it takes them. A classifier's `labels` (N,) say
        of which class each is, and `captions` with what prompt each goes, where that is known; else it goes with those
        of `asked` in turn.
    reader: tells whether an image shows it.
    neutral: what stands for "nothing in particular": the prompt, or the class, that a condition is learnt beside.
    """

    name: str
    asked: tuple[Any, ...]
    images: Tensor
    reader: Reader
    neutral: Any = ""
    labels: Tensor | None = None
    captions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.captions and len(self.captions) != len(self.images):
            raise ValueError(f"{len(self.images)} images of {self.name!r} have {len(self.captions)} captions")

    def at_most(self, count: int) -> "Target":
        """This target with at most `count` of its images, evenly spread. Raises ValueError if there is none."""
        if not len(self.images):
            raise ValueError(f"there is no picture of {self.name!r} to learn from: give some as `images`")
        if len(self.images) <= count:
            return self
        chosen = [i * len(self.images) // count for i in range(count)]
        labels = None if self.labels is None else self.labels[chosen]
        captions = tuple(self.prompts_of_images[i] for i in chosen)
        return replace(self, images=self.images[chosen], labels=labels, captions=captions)

    @property
    def prompts_of_images(self) -> list[str]:
        """The prompt that each image goes with: its caption, or those of `asked` in turn."""
        return list(self.captions) or [str(self.asked[i % len(self.asked)]) for i in range(len(self.images))]


@dataclass(frozen=True, eq=False)
class Subject:
    """A model under attack, with all that an attack may use. An attack leaves every model as it was.

    model: a pipeline or a classifier, on its device.
    target: what is attacked.
    original: the model before unlearning, for attacks that borrow from it; for the ceiling the model itself.
    retained: what stayed and its images, for attacks that train on it.
    sampling: how the family draws: `families.latents.Drawing` for text to image, `evaluation.SamplingConfig` for
        classes.
    samples: images that an attack draws and reads, from each seed.
    unseen: of a classifier, samples of the same classes that no model was trained on.
    references: of a classifier, models trained without the target, which stand for never having seen it.
    """

    model: Any
    target: Target
    original: Any = None
    retained: Target | None = None
    sampling: Any = None
    samples: int = 36
    unseen: Target | None = None
    references: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        check_limits(self, samples="[1, inf)")

    @property
    def asked(self) -> list[Any]:
        """What is asked for in each of the `samples` images: the target's prompts or classes in turn."""
        return [self.target.asked[i % len(self.target.asked)] for i in range(self.samples)]

    def read(self, images: Tensor) -> tuple[bool, ...]:
        """What the target's reader says of each image (N, C, H, W). Raises ValueError if it does not say (N,) bool."""
        with torch.no_grad():
            found = self.target.reader(images)
        if found.dtype != torch.bool or found.shape != (len(images),):
            raise ValueError(
                f"the reader {self.target.reader.name!r} returned {found.dtype} {tuple(found.shape)} for "
                f"{len(images)} images: return one bool each"
            )
        return tuple(found.tolist())


@dataclass(frozen=True)
class Found:
    """What one attack found from one seed.

    recovered: for each image whether it shows the target. Of a relearning attack those after its last step.
    steps: for a relearning attack the steps it took, or its limit where it did not succeed; else None.
    reached: whether it succeeded within its limit of steps.
    details: numbers that go with it, as JSON.
    """

    recovered: tuple[bool, ...] = ()
    steps: int | None = None
    reached: bool = True
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of the images that show the target, 0 to 1. Raises ValueError where none was read."""
        if not self.recovered:
            raise ValueError("an attack that read no image has no share")
        return sum(self.recovered) / len(self.recovered)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, for `json.dumps`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The opposite of `as_dict`, from what `json.loads` returned."""
        return cls(**{**values, "recovered": tuple(values["recovered"])})


@dataclass(frozen=True)
class Attack:
    """Base of all attacks. A subclass is a frozen dataclass: its fields are the hyper-parameters of the attack.

    name: one word. suite: "quick" attacks are in both suites, "full" ones only in the full suite. families: names of
    the families (`families.load`) whose models it attacks. paper: where it is from. counts_steps: it returns steps
    of relearning. same_samples: every seed reads the same samples, which count once in the interval. limits: the
    interval of each numeric field (`common.limits`).
    """

    name: ClassVar[str] = ""
    suite: ClassVar[Suite] = "full"
    families: ClassVar[tuple[str, ...]] = ()
    paper: ClassVar[str] = ""
    counts_steps: ClassVar[bool] = False
    same_samples: ClassVar[bool] = False
    limits: ClassVar[dict[str, str]] = {}

    def __post_init__(self) -> None:
        check_limits(self, **self.limits)

    @property
    def metric(self) -> str:
        """Name of the metric that it gives: one for each attack of a suite."""
        return f"{'relearning' if self.counts_steps else 'recovered'}_{self.name}"

    @property
    def budget(self) -> str:
        """What the attacker has and spends, in words."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it spends: define budget")

    def quick(self) -> Self:
        """This attack in as few steps as still tell most of it, for the quick suite."""
        return replace(self)

    def attack(self, subject: Subject, seed: int) -> Found:
        """Attack the model and read what it shows. Everything random comes from `seed`; the models stay as they are.

        Raises:
            ValueError: the subject lacks what the attack needs; it says what to give.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it attacks: define attack")

    def unfit(self, model: Any) -> str:
        """Why the attack cannot be made on a model of its families; "" where it can."""
        return ""

    def check(self, subject: Subject, seed: int = 0) -> None:
        """Raise ValueError if the attack is for other models, or the seed is out of range."""
        check_limits(_Seed(seed), seed=SEEDS)
        family = prepare_family(subject.model).name
        if family not in self.families:
            raise ValueError(
                f"{self.name} attacks models of the family {' and '.join(self.families)}, not {family}: "
                "choose another attack"
            )
        why = self.unfit(subject.model)
        if why:
            raise ValueError(f"the attack {self.name} cannot be made: {why}")

    def settings(self) -> dict[str, Any]:
        """The fields and their values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class _Seed:
    seed: int
