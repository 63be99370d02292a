"""Requests to a classifier: learn and forget tasks, classes and samples of given data."""

from collections.abc import Iterable
from typing import Any

from ..data.class_names import names_by_number
from ..data.fingerprint import whole_fingerprint
from ..data.protocols import SizedDataset
from ..evaluation.classification import Predictions
from ..families import Classification
from ..families.load import objective_for
from ..training.config import UnlearnConfig
from .continual import ContinualUnlearning
from .ledger import Entry
from .measuring import class_features, measured
from .memory import ReplayMemory
from .requests import Part, Request
from .service import MODEL, Audit, Service
from .strategies import Strategy
from .tasks import Change, Standing, Tasks
from .turns import Turn
from .variants import MemoryVariants

__all__ = ["MODEL", "Audit", "Sequence"]


class Sequence(Service):
    """A classifier that is asked, again and again, to learn and to forget.

    All that a run needs to go on is in `config.output_dir`: the ledger, the weights and the replay memory after the
    last request that is done, and, inside a request, the checkpoints of its trainers where `save_strategy` asks for
    some. A run that is killed anywhere and called again ends in the same weights, memory and figures.

    Args:
        model: a transformers image classifier, or an Objective around one.
        config: arguments of every training; its seed decides everything. Without a learning rate, what forgets finds
            its strength.
        tasks: the data that requests speak of.
        memory: an empty `ReplayMemory`, of 200 samples by default.
        strategy: how requests are carried out; CLU by default.
        known: what the model knows already, to be remembered; None: nothing.
        variants: what draws variants of the memory's samples for each request; None: none are drawn.
        audit: called after each request with the entry, what predicts, and the turn; what it returns is a figure too.

    Raises:
        ValueError: model, tasks and memory do not fit each other.
    """

    def __init__(
        self,
        model: Any,
        config: UnlearnConfig,
        tasks: Tasks,
        memory: ReplayMemory | None = None,
        strategy: Strategy | None = None,
        known: Part | None = None,
        audit: Audit | None = None,
        variants: MemoryVariants | None = None,
    ):
        objective, self.tasks = objective_for(model), tasks
        memory = ReplayMemory() if memory is None else memory
        self._classifier = self._checked(objective)
        self.variants = variants
        if variants is not None:
            variants.check(names_by_number(self._classifier.network.config))
        first = Standing(tasks)
        if known is not None:
            first = first.after(Request(learn=known))
            memory.check(first.classes, tasks.train[0])
        setup = {
            "data": whole_fingerprint(tasks.train),
            "tasks": [list(task) for task in tasks.classes],
            "known": None if known is None else known.as_dict(),
            "variants": None if variants is None else variants.as_dict(),
        }
        super().__init__(objective, config, first, memory, strategy or ContinualUnlearning(), setup, audit)

    def _checked(self, objective: Any) -> Classification:
        if not isinstance(objective, Classification):
            raise ValueError(
                f"a sequence of requests to tasks needs an image classifier, not {type(objective).__name__}: for "
                "diffusion models there is sequences.diffusion.DiffusionSequence"
            )
        outside = sorted(label for label in self.tasks.task_of if label >= objective.num_classes)
        if outside:
            raise ValueError(f"class {outside[0]} is of a task, but the model has {objective.num_classes} classes")
        return objective

    def predict(self, data: SizedDataset) -> Predictions:
        """What the model says of samples as it is now, after `run` as the last request left it."""
        return self.strategy.predictor(self.objective.network, self.others)(data)

    @property
    def audited(self) -> Any:
        return self.predict

    # ---- one request -------------------------------------------------------------------------------
    def _leaves(self, change: Change) -> set[int]:
        return set(change.forget) & set(self.memory.positions)

    def _turn(self, entry: Entry, change: Change, before: Standing, after: Standing) -> Turn:
        folder, temporary = self.store.request(entry.number), entry.asked.temporary
        sides = (change, before, after, self.memory, temporary, self.others)
        turn = Turn(self.objective, self.config, folder, entry.number, *sides)
        kept = turn.remembered
        if self.variants is not None and kept is not None:
            made = self.variants.of(kept, self._classifier, self.predict, turn.seed)
            turn.variants, turn.refused = made.images, made.refused
        return turn

    def _facts(self, change: Change) -> dict[str, Any]:
        parts = {"learn": change.learn, "forget": change.forget}
        sets = {name: self.tasks.samples(positions) for name, positions in parts.items()}
        return {
            "samples": {name: len(positions) for name, positions in parts.items() if positions},
            "data": {name: whole_fingerprint(data) for name, data in sets.items() if data is not None},
        }

    def _fill(self) -> None:
        self._take(self.first.known)

    def _take_in(self, turn: Turn) -> None:
        self._take(turn.change.learn)

    def _take(self, positions: Iterable[int]) -> None:
        """Take samples into the memory that it does not hold yet."""
        new = sorted(set(positions) - set(self.memory.positions))
        data = self.tasks.samples(new)
        if data is not None:
            herding = self.memory.by == "herding"
            self.memory.learn(new, data, class_features(self.objective.network) if herding else None)

    def _figures(self, entries: list[Entry], turn: Turn) -> dict[str, Any]:
        found = measured(self.predict, self.tasks, turn.after, self.queue.forgotten(entries))
        if self.variants is not None:
            drawn = 0 if turn.variants is None else len(turn.variants)
            found |= {"variants": drawn, "refused_variants": turn.refused}
        return found
