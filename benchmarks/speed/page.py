"""What sections share when they are written down: a goal and whether it was met."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """`value` must be at most `limit`."""

    what: str
    value: float
    limit: float

    @property
    def met(self) -> bool:
        return self.value <= self.limit

    @property
    def row(self) -> list[str]:
        return [self.what, f"{self.value:.3f}", f"{self.limit:g}", "met" if self.met else "missed"]


def ratio(compared: dict) -> list[str]:
    """Cells of what `setting.compared` returns: by the clock, its quartiles, by CPU time."""
    low, high = compared["quartiles"]
    return [f"{compared['ratio']:.3f}", f"{low:.3f} to {high:.3f}", f"{compared['cpu_ratio']:.3f}"]


RATIO = ["by the clock", "quartiles", "by CPU time"]
