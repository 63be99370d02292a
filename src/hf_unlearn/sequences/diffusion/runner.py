"""Requests to a diffusion model: it replays what it knows itself, and is held to what it was at first."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ...common.keys import content_key
from ...data.fingerprint import whole_fingerprint
from ...data.images import ArrayDataset
from ...families.denoising import Denoising
from ...families.held import Held
from ...training.config import UnlearnConfig
from ..continual import ContinualUnlearning
from ..ledger import Entry
from ..memory import ReplayMemory
from ..service import Audit, Service
from ..strategies import Strategy, Unlearning
from ..tasks import Change
from .measuring import drift, left
from .painter import Painter
from .standing import Standing
from .turns import PictureTurn

APART = 1_000_000  # positions in the memory, and seeds, of one request
STRATEGIES = (ContinualUnlearning, Unlearning)


class DiffusionSequence(Service):
    """A diffusion model that is asked, again and again, to learn and to forget concepts or classes.

    Sequences drift: what is retained is matched to what the last request left, and what an earlier request forgot is
    in nobody's hands. So, with the defaults, the memory holds pictures that the *first* model drew, retained outputs
    are matched to the first model, and a forgotten prompt is a retained one whose target is what the first model says
    under its anchor (`families.held`). No picture of anything forgotten is written to disk: pictures to forget are
    drawn for their request and are gone with it, those in the memory leave it before anything is trained. The first
    model itself is not kept either: it is the one that is given, whose hash is in the ledger.

    Args:
        painter: the model: a `PromptPainter` or a `ClassPainter`.
        config: arguments of every training; its seed decides everything.
        memory: an empty `ReplayMemory`, of 192 pictures by default.
        strategy: CLU (the default) or SFR-on.
        match: what retained outputs are matched to: the "first" model, or the "last" with pictures of its own.
        hold: whether forgotten prompts are held on their anchors in later requests.
        forget_pictures: how many pictures are drawn of what is forgotten, and of its anchors.
        audit: called after each request with the entry, the pipeline and the turn; what it returns is a figure too.

    Raises:
        ValueError: another strategy, or a memory that is bounded by bytes or smaller than what is replayed.
    """

    first: Standing

    def __init__(
        self,
        painter: Painter,
        config: UnlearnConfig,
        memory: ReplayMemory | None = None,
        strategy: Strategy | None = None,
        match: str = "first",
        hold: bool = True,
        forget_pictures: int = 96,
        audit: Audit | None = None,
    ):
        strategy = strategy or ContinualUnlearning()
        memory = ReplayMemory(192) if memory is None else memory  # an empty one is false
        if not isinstance(strategy, STRATEGIES):
            names = " or ".join(kind.name for kind in STRATEGIES)
            raise ValueError(f"method {strategy.name} is for classifiers: a diffusion model takes {names}")
        if match not in ("first", "last"):
            raise ValueError(f"match must be first or last, got {match!r}")
        if forget_pictures < 1:
            raise ValueError(f"forget_pictures must be at least 1, got {forget_pictures}")
        if memory.samples is None or memory.size is not None or memory.by != "reservoir":
            raise ValueError("the memory of a diffusion model is bounded by samples and chooses by reservoir")
        self.painter, self.match, self.hold, self.forget_pictures = painter, match, hold, forget_pictures
        first = Standing(painter, tuple(painter.every))
        first.check(memory)
        setup = {
            "kind": painter.kind,
            "tag": painter.tag,
            "replayed": list(painter.every),
            "match": match,
            "hold": hold,
            "forget_pictures": forget_pictures,
        }
        base = painter.objective(painter.every, {})
        super().__init__(base, config, first, memory, strategy, setup, audit)
        self.original = deepcopy(base.network).eval().requires_grad_(False)

    @property
    def audited(self) -> Any:
        return self.painter.pipeline

    # ---- pictures ----------------------------------------------------------------------------------
    def _draw(self, keys: Sequence[str], *purpose: Any) -> Tensor:
        """Pictures drawn by the model as it is, one a key; the purpose decides their noise."""
        seed = int(content_key([self.config.seed, *purpose], digits=7), 16)
        training = self.painter.network.training
        try:
            self.painter.network.eval()
            self.painter.pipeline.to(next(self.painter.network.parameters()).device)
            return self.painter.draw(keys, seed)
        finally:
            self.painter.network.train(training)

    def _fill(self) -> None:
        keys, most = self.first.known, self.memory.samples or 0
        self._keep([keys[i % len(keys)] for i in range(most)], self.first, 0)

    def _keep(self, keys: list[str], standing: Standing, number: int) -> None:
        """Draw a picture of each key, and take them into the memory."""
        labels = torch.tensor([standing.every.index(key) for key in keys])
        positions = [number * APART + i for i in range(len(keys))]
        self.memory.learn(positions, ArrayDataset(self._draw(keys, "replay", number), labels))

    def _kept(self, standing: Standing) -> dict[str, list[Tensor]]:
        """The pictures in the memory by key."""
        found: dict[str, list[Tensor]] = {}
        for row, label in enumerate(self.memory.labels):
            found.setdefault(standing.every[label], []).append(self.memory.columns["pixel_values"][row])
        return found

    # ---- one request -------------------------------------------------------------------------------
    def _leaves(self, change: Change) -> set[int]:
        standing = self.queue.standing(self.ledger.done)
        every = zip(self.memory.positions, self.memory.labels, strict=True)
        return {position for position, label in every if standing.every[label] in change.forget}

    def _facts(self, change: Change) -> dict[str, Any]:
        number = len(self.ledger.done)
        part = self.ledger.entries[number].asked.to_learn
        found: dict[str, Any] = {"samples": {}, "data": {}}
        if part is not None:
            images = self.painter.images(part)
            told = getattr(images, "captions", None)
            data = content_key([whole_fingerprint(images), told]) if told else whole_fingerprint(images)
            found = {"samples": {"learn": len(images)}, "data": {"learn": data}}
        if change.forget:
            found["samples"]["forget"] = max(self.forget_pictures, len(change.forget))
        return found

    def _turn(self, entry: Entry, change: Change, before: Standing, after: Standing) -> PictureTurn:
        folder, moved = self.store.request(entry.number), after.moved(before)
        objective = self._objective(after, moved, change)
        self.objective = objective  # it is of this request's prompts
        sets: dict[str, Any] = {"retain": self._retained(objective, after, moved, entry.number)}
        if moved:
            sets["forget"] = self._to_forget(objective, moved, entry.number)
        part = entry.asked.to_learn
        if part is not None:
            images, keys = self.painter.images(part), sorted(change.learn)
            pictures = self.painter.encoded(images, folder / "encoded")
            named = [self.painter.key_of(images, keys, i % len(images)) for i in range(len(pictures))]
            sets["learn"] = self._labelled(objective, pictures, named)
        sides = (change, before, after, self.memory, entry.asked.temporary, self.others)
        return PictureTurn(objective, self.config, folder, entry.number, *sides, sets=sets)

    def _objective(self, after: Standing, moved: dict[str, str], change: Change) -> Denoising:
        keys = [*after.every, *after.gone, *after.gone.values()]
        made = self.painter.objective(keys, moved)
        if self.match == "first":
            number = {key: self.painter.number(made, key) for key in keys}
            anchors = {number[key]: number[anchor] for key, anchor in after.gone.items()}
            since = frozenset(number[key] for key in after.since - change.learn)
            latest: nn.Module | None = deepcopy(made.network).eval().requires_grad_(False) if since else None
            made.held = Held(self.original, anchors, latest, since)
        return made

    def _labelled(self, objective: Denoising, pictures: Tensor, keys: Sequence[str]) -> ArrayDataset:
        return ArrayDataset(pictures, torch.tensor([self.painter.number(objective, key) for key in keys]))

    def _to_forget(self, objective: Denoising, moved: dict[str, str], number: int) -> ArrayDataset:
        """Pictures of what goes and of what comes in its place, in turn, all under the keys that go."""
        pairs = sorted(moved.items())
        asked = [pairs[i % len(pairs)] for i in range(max(self.forget_pictures, len(pairs)))]
        sources = [pair[i // len(pairs) % 2] for i, pair in enumerate(asked)]
        return self._labelled(objective, self._draw(sources, "forget", number), [key for key, _ in asked])

    def _retained(self, objective: Denoising, after: Standing, moved: dict[str, str], number: int) -> ArrayDataset:
        """What is replayed, and each forgotten key with the pictures of its anchor."""
        kept = self._kept(after)
        if self.match == "last":
            keys = [after.every[label] for label in self.memory.labels]
            redrawn = self._draw(keys, "redrawn", number)
            kept = {}
            for key, picture in zip(keys, redrawn):
                kept.setdefault(key, []).append(picture)
        rows = [(picture, key) for key in after.every for picture in kept.get(key, ())]
        held = [pair for pair in after.gone.items() if pair[0] not in moved] if self.hold else []
        lacking = sorted({anchor for _, anchor in held if anchor not in kept})
        if lacking:  # as the empty prompt
            wanted = [anchor for anchor in lacking for _ in range(2)]
            for anchor, picture in zip(wanted, self._draw(wanted, "anchors", number)):
                kept.setdefault(anchor, []).append(picture)
        rows += [(picture, key) for key, anchor in sorted(held) for picture in kept[anchor]]
        return self._labelled(objective, torch.stack([p for p, _ in rows]), [key for _, key in rows])

    def _take_in(self, turn: Any) -> None:
        learnt = sorted(turn.change.new)
        if learnt:
            most = -(-(self.memory.samples or 0) // len(turn.after.known))
            self._keep([key for key in learnt for _ in range(most)], turn.after, turn.number)

    def _figures(self, entries: list[Entry], turn: Any) -> dict[str, Any]:
        """left: by the number of a forget request, what is left of what is still forgotten of it (`measuring.left`),
        where the first model knew it; drift: of what is replayed and was not learnt since; replayed: how many keys.
        """
        objective, after = turn.objective, turn.after
        number = {
            key: self.painter.number(objective, key) for key in {*after.every, *after.gone, *after.gone.values()}
        }
        kept = {number[key]: pictures for key, pictures in self._kept(after).items()}
        new = after.taught - set(self.first.every)  # the first model never knew these
        found = {}
        for request, keys in self.queue.forgotten(entries).items():
            gone = {number[key]: number[after.gone[key]] for key in sorted(keys - new)}
            if gone:
                found[str(request)] = left(objective, self.original, kept, gone, self.config.seed)
        since = {number[key] for key in after.since}
        rows = [(pictures[0], label) for label, pictures in kept.items() if label not in since]
        moved = drift(objective, self.original, rows, self.config.seed) if rows else None
        return {"left": found, "drift": moved, "replayed": len(after.known)}
