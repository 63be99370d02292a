"""The data that requests speak of, and what is known of it after some of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..data.pairs import labels_of, subset
from ..data.protocols import SizedDataset
from .memory import ReplayMemory
from .requests import ConceptPart, Part, Request


class Tasks:
    """Training and test data whose classes come in tasks. A class belongs to one task.

    Args:
        train: what is learnt and forgotten; requests name its samples by position.
        test: samples of the same classes that nothing is trained on.
        classes: the class numbers of each task, such as [[0, 1], [2, 3]].
        holdout: further samples that nothing is trained on, which say how an unseen sample looks (`UnlearnTrainer`).

    Raises:
        ValueError: data without labels, a class in two tasks, or one without samples.
    """

    def __init__(
        self,
        train: SizedDataset,
        test: SizedDataset,
        classes: Sequence[Sequence[int]],
        holdout: SizedDataset | None = None,
    ):
        self.train, self.test, self.holdout = train, test, holdout
        self.classes = tuple(tuple(sorted(task)) for task in classes)
        labels, test_labels = labels_of(train), labels_of(test)
        if labels is None or test_labels is None:
            raise ValueError("tasks are made of classes: give data with labels")
        self.labels: list[int] = labels
        self.test_labels: list[int] = test_labels
        self.task_of: dict[int, int] = {}
        for number, task in enumerate(self.classes):
            for label in task:
                if label in self.task_of:
                    raise ValueError(f"class {label} is in two tasks, {self.task_of[label]} and {number}")
                self.task_of[label] = number
        self._of_class: dict[int, list[int]] = {label: [] for label in self.task_of}
        for position, label in enumerate(labels):
            if label in self._of_class:
                self._of_class[label].append(position)
        for label, positions in self._of_class.items():
            if not positions or label not in test_labels:
                raise ValueError(f"class {label} has no {'test' if positions else 'training'} sample")

    def __len__(self) -> int:
        return len(self.classes)

    def of_classes(self, classes: Iterable[int]) -> set[int]:
        """Positions of the training samples of these classes."""
        return {position for label in classes for position in self._of_class[label]}

    def of_class_names(self, part: Part | ConceptPart) -> list[tuple[str, set[int]]]:
        """(name, positions) of each task and class that a part names.

        Raises:
            ValueError: there is no such task, class or sample, or a concept is named.
        """
        if isinstance(part, ConceptPart):
            raise ValueError(f"{part.text}: a request to a classifier names tasks, classes or samples, no concept")
        for task in part.tasks:
            if task >= len(self.classes):
                raise ValueError(f"there is no task {task}: tasks are numbered 0 to {len(self.classes) - 1}")
        for label in part.classes:
            if label not in self.task_of:
                raise ValueError(f"class {label} is in no task: there is {', '.join(map(str, sorted(self.task_of)))}")
        for position in part.samples:
            if position >= len(self.labels):
                raise ValueError(f"there is no sample {position}: the training data has {len(self.labels)}")
            if self.labels[position] not in self.task_of:
                raise ValueError(f"sample {position} is of class {self.labels[position]}, which is in no task")
        named = [(f"task {task}", self.of_classes(self.classes[task])) for task in part.tasks]
        return [*named, *((f"class {label}", self.of_classes([label])) for label in part.classes)]

    def samples(self, positions: Iterable[int]) -> SizedDataset | None:
        """The training samples at these positions, in the order of the data; None for no position."""
        chosen = sorted(positions)
        return subset(self.train, chosen) if chosen else None

    def tests(self, classes: Iterable[int]) -> SizedDataset | None:
        """The test samples of these classes; None where there are none."""
        wanted = set(classes)
        chosen = [i for i, label in enumerate(self.test_labels) if label in wanted]
        return subset(self.test, chosen) if chosen else None

    def holdouts(self, classes: Iterable[int]) -> SizedDataset | None:
        """The held-out samples of these classes; None where there are none."""
        if self.holdout is None:
            return None
        wanted, labels = set(classes), labels_of(self.holdout) or []
        chosen = [i for i, label in enumerate(labels) if label in wanted]
        return subset(self.holdout, chosen) if chosen else None


@dataclass(frozen=True)
class Change:
    """What a request comes to: positions in the training data, or keys of a diffusion model's conditions.

    learn: what is trained on; new: those of it that were not known before.
    forget: what goes.
    """

    learn: frozenset[Any] = frozenset()
    forget: frozenset[Any] = frozenset()
    new: frozenset[Any] = frozenset()


@dataclass(frozen=True)
class Standing:
    """What is known after some requests: sets of positions in the training data.

    remembered, temporary: learnt, for good or for a time.
    forgotten: learnt once, and forgotten.
    singly: those that were forgotten one by one. A later request for their task or class leaves them out; only one
        that names them again has them learnt again.
    """

    tasks: Tasks = field(repr=False, compare=False)
    remembered: frozenset[int] = frozenset()
    temporary: frozenset[int] = frozenset()
    forgotten: frozenset[int] = frozenset()
    singly: frozenset[int] = frozenset()

    def check(self, memory: ReplayMemory) -> None:
        """Raise ValueError if a memory cannot hold a sample of each class that is known."""
        memory.check(self.classes, self.tasks.train[0])

    @property
    def known(self) -> frozenset[int]:
        """All that is learnt now."""
        return self.remembered | self.temporary

    @property
    def classes(self) -> list[int]:
        """The classes of which some sample is known."""
        return sorted({self.tasks.labels[position] for position in self.known})

    def change(self, request: Request) -> Change:
        """What a request means now.

        Raises:
            ValueError: it names what there is not, asks to learn what is known already or to forget what is not, or
                learns and forgets the same samples.
        """
        learn, forget = self._learn(request), self._forget(request)
        if learn & forget:
            raise ValueError(f"{len(learn & forget)} samples are to be learnt and forgotten in one request")
        return Change(frozenset(learn), frozenset(forget), frozenset(learn - self.known))

    def after(self, request: Request) -> "Standing":
        """What is known once the request is done. Raises what `change` raises."""
        change = self.change(request)
        remembered, temporary = self.remembered - change.forget, self.temporary - change.forget
        if request.temporary:
            temporary = temporary | change.learn
        else:
            remembered, temporary = remembered | change.learn, temporary - change.learn
        singly = self.singly - change.learn
        if request.to_forget is not None:
            singly = singly | (change.forget & set(request.to_forget.samples))
        forgotten = (self.forgotten - change.learn) | change.forget
        return replace(self, remembered=remembered, temporary=temporary, forgotten=forgotten, singly=singly)

    def _learn(self, request: Request) -> set[int]:
        part = request.to_learn
        if part is None:
            return set()
        found: set[int] = set()
        done = self.known if request.temporary else self.remembered
        for name, positions in self.tasks.of_class_names(part):
            wanted = positions - self.singly
            if not wanted - done:
                raise ValueError(f"{name} is learnt already")
            found |= wanted - done
        known = sorted(set(part.samples) & done)
        if known:
            raise ValueError(f"sample {known[0]} is learnt already")
        return found | set(part.samples)

    def _forget(self, request: Request) -> set[int]:
        part = request.to_forget
        if part is None:
            return set()
        found: set[int] = set()
        for name, positions in self.tasks.of_class_names(part):
            if not positions & self.known:
                raise ValueError(f"{name} {self._why(positions)}")
            found |= positions & self.known
        lost = sorted(set(part.samples) - self.known)
        if lost:
            raise ValueError(f"sample {lost[0]} {self._why({lost[0]})}")
        return found | set(part.samples)

    def _why(self, positions: set[int]) -> str:
        gone = positions & self.forgotten
        return "is forgotten already" if gone else "was never learnt, so it cannot be forgotten"
