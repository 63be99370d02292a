"""A measured number with what is needed to read it: definition, number of samples, libraries."""

import math
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

# By the beginning of a metric's name, first match first: (part, whether less is better, None for neither).
ROLES: dict[str, tuple[str, bool | None]] = {
    "forget_accuracy": ("forget", True),
    "forgotten_class_test_accuracy": ("forget", True),
    "unsafe_share": ("forget", True),
    "forget_loss": ("forget", None),
    "retain_accuracy": ("retain", False),
    "in_domain_retain_accuracy": ("retain", False),
    "cross_domain_retain_accuracy": ("retain", False),
    "test_accuracy": ("retain", False),
    "retain_loss": ("retain", True),
    "frechet_distance": ("retain", True),
    "clip_score_forget": ("forget", True),
    "clip_score": ("retain", False),
    "fid": ("retain", True),
    "kid": ("retain", True),
    "precision": ("retain", False),
    "recall": ("retain", False),
    "lpips_retain": ("retain", True),
    "lpips_forget": ("forget", False),
    "average_gap": ("privacy", True),
    "mia": ("privacy", None),
}


@dataclass
class Metric:
    """A number for a card or a table.

    Attributes:
        value: the number in the unit that `definition` names, or None for a rate over nothing.
        definition: one sentence that says what is averaged, over which data, and what direction means what.
        samples: the number of samples that the value is a mean over.
        library: the libraries that computed it, from `version_of`.
        details: numbers and settings that belong to the value.
    """

    value: float | None
    definition: str
    samples: int
    library: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> float:
        """The value where there must be one. Raises ValueError for a rate over nothing."""
        if self.value is None:
            raise ValueError(f"there is no value: {self.definition}, of no samples")
        return self.value

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, for `json.dump`."""
        return asdict(self)


def version_of(*packages: str) -> str:
    """Return installed versions, major and minor, in the given order: "scikit-learn 1.9, torch 2.13".

    Raises:
        importlib.metadata.PackageNotFoundError: a package is not installed.
    """
    return ", ".join(f"{name} {'.'.join(version(name).split('.')[:2])}" for name in packages)


def share_interval(share: float, samples: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of independent samples (Wilson 1927), which also holds near 0 and 1.

    Raises:
        ValueError: there are no samples.
    """
    if samples < 1:
        raise ValueError("a share of no samples has no interval")
    z = 1.959964
    centre, scale = share + z**2 / (2 * samples), 1 + z**2 / samples
    half = z * math.sqrt(share * (1 - share) / samples + z**2 / (4 * samples**2))
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def role_of(figure: str) -> tuple[str, bool | None]:
    """Return what a metric says ("forget", "retain", "privacy" or "other") and whether less is better, or None."""
    return next((role for name, role in ROLES.items() if figure.startswith(name)), ("other", None))


def is_share(figure: str) -> bool:
    """Return whether a metric is a share in [0, 1], to be shown in %."""
    return figure.endswith(("_accuracy", "_share")) or figure.startswith(
        ("mia_", "unsafe_share", "precision", "recall")
    )
