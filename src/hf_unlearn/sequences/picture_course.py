"""What a sequence on a diffusion model comes to, from its ledger alone; and its picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.files import atomic
from .ledger import Entry, Ledger

NAMES = {
    "left": "the part of the way back from the anchor that forgotten things still are, mean after the last request",
    "worst": "the largest such part of any forgotten thing after any request",
    "relapse": "the largest rise of that part during later requests",
    "drift": "distance of replayed outputs from the first model's after the last request, over their size",
}


class PictureCourse:
    """The requests of a ledger that are done, on a diffusion model."""

    def __init__(self, entries: Sequence[Entry]):
        self.entries = list(entries)

    @classmethod
    def of(cls, ledger: Ledger) -> "PictureCourse":
        """The course of a ledger."""
        return cls(ledger.done)

    @property
    def forget_requests(self) -> list[int]:
        """The requests that forgot something that is measured, from 0."""
        return [i for i in range(len(self.entries)) if self.left(i, i) is not None]

    def left(self, request: int, later: int) -> float | None:
        """What is left, after request `later`, of what `request` forgot; None where nothing is forgotten any more.
        Both count from 0."""
        return self.entries[later].figures["left"].get(str(self.entries[request].number))

    @property
    def drifts(self) -> list[float | None]:
        """The drift after each request."""
        return [entry.figures["drift"] for entry in self.entries]

    def figures(self) -> dict[str, float | None]:
        """All metrics by the names of NAMES; shares."""
        every = [value for entry in self.entries for value in entry.figures["left"].values()]
        last = list(self.entries[-1].figures["left"].values()) if self.entries else []
        rises = []
        for f in self.forget_requests:
            right_after = self.left(f, f)
            later = [self.left(f, i) for i in range(f + 1, len(self.entries))]
            rises += [value - right_after for value in later if value is not None and right_after is not None]
        return {
            "left": sum(last) / len(last) if last else None,
            "worst": max(every, default=None),
            "relapse": max(0.0, *rises) if rises else None,
            "drift": self.drifts[-1] if self.entries else None,
        }


def plot(course: PictureCourse, names: Sequence[str], path: str | Path) -> None:
    """Write a PNG: what is left of each forgotten thing, and the drift, after each request.

    Args:
        names: of the requests, for the axis.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    wide = max(5.5, 0.7 * len(names) + 2.5)
    figure, axes = plt.subplots(2, 1, figsize=(wide, 5.2), dpi=130, sharex=True)
    for f in course.forget_requests:
        later = [(i, course.left(f, i)) for i in range(f, len(course.entries))]
        points = [(i, 100 * value) for i, value in later if value is not None]
        axes[0].plot(*zip(*points, strict=True), marker="o", ms=4, label=names[f])
    axes[0].set_ylabel("left of the\nforgotten, %")
    if course.forget_requests:
        axes[0].legend(fontsize=7, frameon=False, ncols=2)
    drifts: list[Any] = [None if value is None else 100 * value for value in course.drifts]
    axes[1].plot(range(len(names)), drifts, marker="o", ms=4, color="#57606a")
    axes[1].set_ylabel("drift of what\nstays, %")
    axes[1].set_ylim(bottom=0)
    axes[1].set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    with atomic(path) as partial:
        figure.savefig(partial, format="png")
    plt.close(figure)
