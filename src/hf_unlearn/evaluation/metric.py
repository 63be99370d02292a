"""One measured number, and what is needed to read it: its definition, how many samples, which libraries."""

from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any


@dataclass
class Metric:
    """A number that can stand in a card or a table.

    value: the number, in the unit that `definition` names; None for a rate over nothing.
    definition: one sentence: what is averaged, over which data, and which direction means what.
    samples: how many samples the value is a mean over.
    library: what computed it, from `version_of`.
    details: numbers and settings that go with the value.
    """

    value: float | None
    definition: str
    samples: int
    library: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """All fields, for `json.dump`."""
        return asdict(self)


def version_of(*packages: str) -> str:
    """Installed versions as 'scikit-learn 1.9, torch 2.13': major and minor, in the order asked.

    Raises:
        importlib.metadata.PackageNotFoundError: a package is not installed.
    """
    return ", ".join(f"{name} {'.'.join(version(name).split('.')[:2])}" for name in packages)
