"""What a diffusion model knows and what it is held to, after some requests.

A *key* names one condition of the model: a prompt, or the number of a class as text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..memory import ReplayMemory
from ..requests import Request
from ..tasks import Change


class Words(Protocol):
    """What a family of models makes of the parts of a request."""

    def pairs(self, part: Any, standing: "Standing") -> dict[str, str]:
        """{key: the anchor's key} of what a part of a request names, given what is known before it.

        Raises:
            ValueError: the family has no such thing.
        """
        ...

    def check_learnable(self, part: Any) -> None:
        """Raise ValueError if there is nothing to learn a part from."""
        ...


@dataclass(frozen=True)
class Standing:
    """What is known after some requests.

    every: all keys that were ever replayed, in order; a key's place is its number in the memory.
    gone: {forgotten key: the key that it draws now}. The latter is never forgotten itself.
    since: keys that were learnt by a request and are known still.
    taught: keys that were learnt by some request, known still or not.
    """

    words: Words = field(repr=False, compare=False)
    every: tuple[str, ...]
    gone: Mapping[str, str] = field(default_factory=dict)
    since: frozenset[str] = frozenset()
    taught: frozenset[str] = frozenset()

    @property
    def known(self) -> list[str]:
        """The keys that are replayed, in their order."""
        return [key for key in self.every if key not in self.gone]

    @property
    def forgotten(self) -> frozenset[str]:
        """All keys that are forgotten."""
        return frozenset(self.gone)

    def check(self, memory: ReplayMemory) -> None:
        """Raise ValueError if the memory cannot hold a picture of each key."""
        if memory.samples is not None and memory.samples < len(self.known):
            raise ValueError(
                f"the memory holds {memory.samples} pictures, fewer than the {len(self.known)} prompts or classes "
                "that are known: enlarge it"
            )

    def change(self, request: Request) -> Change:
        """The keys that a request names.

        Raises:
            ValueError: it names what there is not, learns what is known already or forgets what is forgotten, has an
                anchor that is forgotten, or leaves nothing that is known.
        """
        learn, forget = self._learn(request), self._forget(request)
        if learn & forget.keys():
            raise ValueError(f"{min(learn & forget.keys())!r} is to be learnt and forgotten in one request")
        return Change(frozenset(learn), frozenset(forget), frozenset(learn - set(self.known)))

    def after(self, request: Request) -> "Standing":
        """What is known once the request is done. Raises what `change` raises."""
        learn, forget = self._learn(request), self._forget(request)
        change = self.change(request)
        moved = {key: forget.get(anchor, anchor) for key, anchor in self.gone.items()}  # its anchor is forgotten too
        gone = {key: anchor for key, anchor in {**moved, **forget}.items() if key not in learn}
        every = (*self.every, *(key for key in sorted(learn) if key not in self.every))
        since = (self.since | change.learn) - change.forget
        return replace(self, every=every, gone=gone, since=since, taught=self.taught | change.learn)

    def moved(self, before: "Standing") -> dict[str, str]:
        """{key: anchor} of all that draws something else than before: what was forgotten, and what an anchor that
        was forgotten stood for."""
        return {key: anchor for key, anchor in self.gone.items() if before.gone.get(key) != anchor}

    def _learn(self, request: Request) -> set[str]:
        if request.to_learn is None:
            return set()
        keys = set(self.words.pairs(request.to_learn, self))
        self.words.check_learnable(request.to_learn)
        if keys <= set(self.known):
            raise ValueError(f"{request.to_learn.text} is known already")
        return keys

    def _forget(self, request: Request) -> dict[str, str]:
        part = request.to_forget
        if part is None:
            return {}
        pairs = self.words.pairs(part, self)
        if pairs.keys() <= self.gone.keys():
            raise ValueError(f"{part.text} is forgotten already")
        live = {key: self.gone.get(anchor, anchor) for key, anchor in pairs.items()}
        for key, anchor in live.items():
            if anchor in pairs:
                how = (
                    "is to be forgotten itself"
                    if anchor == pairs[key]
                    else f"draws {anchor!r}, which is to be forgotten"
                )
                raise ValueError(f"the anchor {pairs[key]!r} of {key!r} {how}: choose another anchor")
        if not set(self.known) - pairs.keys():
            raise ValueError("nothing would be left that is known: the rest is what keeps the model together")
        return live
