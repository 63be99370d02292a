"""What is asked of a model in service: learn this, forget that."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from ..families.concepts import normal

WORD = re.compile(r"(\d+)([RTF])")
KEYS = ("learn", "forget", "task", "temporary")


@dataclass(frozen=True)
class Part:
    """Some of the data: the union of whole tasks, of classes wherever they occur, and of single samples.

    tasks: numbers of tasks.
    classes: class numbers.
    samples: positions in the training data.

    Raises:
        ValueError: it names nothing, or something twice or below 0.
    """

    tasks: tuple[int, ...] = ()
    classes: tuple[int, ...] = ()
    samples: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            given = getattr(self, field.name)
            if isinstance(given, str) or not isinstance(given, Sequence):
                given = (given,)
            wrong = [item for item in given if isinstance(item, bool) or not isinstance(item, int) or item < 0]
            if wrong:
                raise ValueError(f"{field.name} holds {wrong[0]!r}: give numbers from 0")
            twice = sorted({item for item in given if list(given).count(item) > 1}) if len(given) < 1000 else []
            if twice:
                raise ValueError(f"{field.name} names {twice[0]} twice")
            object.__setattr__(self, field.name, tuple(sorted(set(given))))
        if not (self.tasks or self.classes or self.samples):
            raise ValueError("a request names no data: give tasks, classes or samples")

    @property
    def text(self) -> str:
        """What it names, in words; of many samples only how many there are."""
        said = []
        for one, several, numbers in (
            ("task", "tasks", self.tasks),
            ("class", "classes", self.classes),
            ("sample", "samples", self.samples),
        ):
            if len(numbers) > 6:
                said.append(f"{len(numbers)} {several}")
            elif numbers:
                said.append(f"{several if len(numbers) > 1 else one} {', '.join(map(str, numbers))}")
        return " and ".join(said)

    def as_dict(self) -> dict[str, list[int]]:
        """What it names, without what is empty."""
        return {field.name: list(getattr(self, field.name)) for field in fields(self) if getattr(self, field.name)}


@dataclass(frozen=True)
class ConceptPart:
    """What a text-to-image model is to learn or to forget, in words.

    concept: the concept, such as "a rocket", which stands in the prompts.
    anchor: what is drawn instead of a forgotten concept; without one a prompt without it is.
    templates: prompts with "{}" in the place of the concept; without some, those of the sequence.
    images: folder of pictures of the concept, to learn from.

    Raises:
        ValueError: a text is empty or no text, or the concept is its own anchor.
    """

    concept: str
    anchor: str | None = None
    templates: tuple[str, ...] = ()
    images: str | None = None
    tasks: ClassVar[tuple[int, ...]] = ()
    classes: ClassVar[tuple[int, ...]] = ()
    samples: ClassVar[tuple[int, ...]] = ()

    def __post_init__(self) -> None:
        given = (self.templates,) if isinstance(self.templates, str) else tuple(self.templates)
        object.__setattr__(self, "templates", given)
        for name, text in (("concept", self.concept), ("anchor", self.anchor), ("images", self.images)):
            if not (text is None and name != "concept") and (not isinstance(text, str) or not text.strip()):
                raise ValueError(f"{name} is {text!r}: give a text")
        wrong = [text for text in given if not isinstance(text, str) or text.count("{}") != 1]
        if wrong:
            raise ValueError(f'template {wrong[0]!r} needs "{{}}" once, in the place of the concept')
        if self.anchor is not None and normal(self.anchor) == normal(self.concept):
            raise ValueError(f"concept {self.concept!r} is its own anchor: choose another anchor")

    @property
    def text(self) -> str:
        """What it names, in words."""
        return self.concept if self.anchor is None else f"{self.concept} (draws {self.anchor})"

    def as_dict(self) -> dict[str, Any]:
        """What it names, without what is empty."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v}


@dataclass(frozen=True)
class Request:
    """One request: data to learn, data to forget, or both at once.

    The three kinds of CLPU (arXiv 2203.12817) are R, learn and remember; T, learn for a time, so that it may be
    forgotten later; F, forget. Unlike there, what was learnt to be remembered may be forgotten too: a law that asks
    for it outranks the intention.

    Args:
        learn, forget: a `Part`, a `ConceptPart`, or True for the whole of `task`.
        task: the number of a whole task; then exactly one of learn and forget is True.
        temporary: whether what is learnt is learnt for a time (T).

    Raises:
        ValueError: it asks for nothing, or to learn and forget the same, or its arguments contradict each other.
    """

    learn: Part | ConceptPart | bool | None = None
    forget: Part | ConceptPart | bool | None = None
    task: int | None = None
    temporary: bool = False

    def __post_init__(self) -> None:
        whole = [name for name in ("learn", "forget") if getattr(self, name) is True]
        if self.task is None and whole:
            raise ValueError(f"{whole[0]} is True: name the task, or give the part of the data")
        if self.task is not None:
            if len(whole) != 1:
                raise ValueError(f"task {self.task} needs one of learn=True and forget=True")
            object.__setattr__(self, whole[0], Part(tasks=(self.task,)))
            object.__setattr__(self, "task", None)  # it stands in the part now: equal requests compare equal
        for name in ("learn", "forget"):
            value = getattr(self, name)
            if value is False:
                object.__setattr__(self, name, None)
            elif value is not None and not isinstance(value, Part | ConceptPart):
                raise ValueError(f"{name} is a {type(value).__name__}: give a Part, or True with a task")
        if self.learn is None and self.forget is None:
            raise ValueError("a request asks for nothing: say what to learn or what to forget")
        if self.temporary and self.learn is None:
            raise ValueError("temporary is said of what is learnt, and nothing is")
        for name in ("tasks", "classes", "samples"):
            both = set(getattr(self.learn, name, ())) & set(getattr(self.forget, name, ()))
            if both:
                raise ValueError(f"{name} {min(both)} is to be learnt and forgotten in one request")

    @property
    def to_learn(self) -> Part | ConceptPart | None:
        """What is to be learnt."""
        assert not isinstance(self.learn, bool)
        return self.learn

    @property
    def to_forget(self) -> Part | ConceptPart | None:
        """What is to be forgotten."""
        assert not isinstance(self.forget, bool)
        return self.forget

    @property
    def text(self) -> str:
        """The request in words, such as "learn task 1 for a time" or "forget classes 1, 5"."""
        said = []
        if self.to_learn is not None:
            said.append(f"learn {self.to_learn.text}{' for a time' if self.temporary else ''}")
        if self.to_forget is not None:
            said.append(f"forget {self.to_forget.text}")
        return ", ".join(said)

    @property
    def word(self) -> str:
        """The request as CLPU writes it where it is of one whole task, such as "1T"; else its text."""
        learn, forget = self.to_learn, self.to_forget
        part = learn or forget
        if part is None or (learn and forget) or part.classes or part.samples or len(part.tasks) != 1:
            return self.text
        return f"{part.tasks[0]}{'F' if learn is None else 'T' if self.temporary else 'R'}"

    def as_dict(self) -> dict[str, Any]:
        """The request as JSON; `request_of` reads it back."""
        found: dict[str, Any] = {}
        if self.to_learn is not None:
            found["learn"] = self.to_learn.as_dict()
        if self.to_forget is not None:
            found["forget"] = self.to_forget.as_dict()
        return {**found, "temporary": True} if self.temporary else found


def request_of(given: Any) -> Request:
    """Make a request of a Request, of a word such as "1T", or of a mapping as in a YAML file.

    A mapping has the keys `learn` and `forget`, each a mapping of `tasks`, `classes` and `samples` to numbers, or of
    `concept`, `anchor`, `templates` and `images` to texts, or `task` with one of them true, and `temporary`.

    Raises:
        ValueError: it is none of these, or what `Request` raises.
    """
    if isinstance(given, Request):
        return given
    if isinstance(given, str):
        match = WORD.fullmatch(given.strip().upper())
        if match is None:
            raise ValueError(f"request {given!r} is not like 0R, 1T or 2F")
        task, kind = int(match[1]), match[2]
        return Request(forget=True, task=task) if kind == "F" else Request(True, task=task, temporary=kind == "T")
    if not isinstance(given, Mapping):
        raise ValueError(f"request {given!r} is neither a word like 1T nor a mapping of learn and forget")
    unknown = sorted(str(key) for key in given if key not in KEYS)
    if unknown:
        raise ValueError(f"request has the unknown key {unknown[0]!r}, known are {', '.join(KEYS)}")
    learn, forget = (_part(name, given[name]) if name in given else None for name in ("learn", "forget"))
    whole, temporary = given.get("task"), given.get("temporary", False)
    if whole is not None and (isinstance(whole, bool) or not isinstance(whole, int)):
        raise ValueError(f"task {whole!r} is no number")
    if not isinstance(temporary, bool):
        raise ValueError(f"temporary is {temporary!r}: write true or false")
    return Request(learn, forget, whole, temporary)


def requests_of(given: Any) -> list[Request]:
    """Make requests of a list of what `request_of` takes, or of words in one string: "0R 1T 2F"."""
    if isinstance(given, str):
        given = given.split()
    if not isinstance(given, Sequence) or not given:
        raise ValueError("requests must be a list, such as [0R, 1T, 2F]")
    return [request_of(each) for each in given]


def _part(name: str, given: Any) -> Part | ConceptPart | bool:
    if isinstance(given, Part | ConceptPart | bool):
        return given
    if isinstance(given, Mapping) and "concept" in given:
        return _concept(name, given)
    if not isinstance(given, Mapping):
        raise ValueError(f"{name} is {given!r}: give a mapping of tasks, classes or samples to numbers")
    known = {
        **{field.name: field.name for field in fields(Part)},
        "task": "tasks",
        "class": "classes",
        "sample": "samples",
    }
    unknown = sorted(str(key) for key in given if key not in known)
    if unknown:
        raise ValueError(f"{name} has the unknown key {unknown[0]!r}, known are tasks, classes and samples")
    return Part(**{known[key]: value for key, value in given.items()})


def _concept(name: str, given: Mapping[str, Any]) -> ConceptPart:
    known = [field.name for field in fields(ConceptPart)]
    unknown = sorted(str(key) for key in given if key not in known)
    if unknown:
        raise ValueError(f"{name} has the unknown key {unknown[0]!r}, known are {', '.join(known)}")
    if name == "forget" and given.get("images"):
        raise ValueError("images are for what is learnt: the model draws what it forgets itself")
    if name == "learn" and given.get("anchor"):
        raise ValueError("an anchor is for what is forgotten: leave it out")
    return ConceptPart(**given)
