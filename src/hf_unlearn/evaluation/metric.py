"""A measured number with what is needed to read it: definition, number of samples, libraries."""

import math
import re
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple


class Role(NamedTuple):
    """What a metric is about (one of PARTS), and whether less is better; None if neither direction is."""

    part: str
    less_is_better: bool | None


FEWEST = 30  # forgotten samples below which a share says nothing: 0 of 30 is 0 to 11 %
OTHER = Role("other", None)
HELD_OUT_PROMPTS = "_held_out"  # ends the names of metrics on prompts that nothing was trained on
ANCHOR_SHARE = "anchor_share_latents"  # of what the forgotten became, which is not all that should stay
ATTACKS = ("recovered_", "relearning_")  # beginnings of the names of what attacks found
PARTS = ("forget", "retain", "privacy", "other")
# The first name that a metric's own name begins with counts.
ROLES: dict[str, Role] = {
    "forget_accuracy": Role("forget", True),
    "forgotten_class_test_accuracy": Role("forget", True),
    "unsafe_share": Role("forget", True),
    "concept_share": Role("forget", True),
    "recovered_": Role("forget", True),
    "relearning_": Role("forget", False),
    "holdout": Role("other", None),
    "forget_loss": Role("forget", None),
    "forget_progress": Role("forget", False),
    "retain_drift": Role("retain", True),
    "anchor_share": Role("retain", False),
    "retain_accuracy": Role("retain", False),
    "in_domain_retain_accuracy": Role("retain", False),
    "cross_domain_retain_accuracy": Role("retain", False),
    "test_accuracy": Role("retain", False),
    "retain_loss": Role("retain", True),
    "frechet_distance": Role("retain", True),
    "latent_distance": Role("retain", True),
    "clip_score_forget": Role("forget", True),
    "clip_score": Role("retain", False),
    "fid": Role("retain", True),
    "kid": Role("retain", True),
    "precision": Role("retain", False),
    "recall": Role("retain", False),
    "lpips_retain": Role("retain", True),
    "lpips_forget": Role("forget", False),
    "average_gap": Role("privacy", True),
    "mia": Role("privacy", None),
}


@dataclass
class Metric:
    """A number that can stand in a card or a table, with what is needed to read it."""

    value: Annotated[float | None, "the number, in the unit that `definition` names; null for a rate over nothing"]
    definition: Annotated[str, "what is averaged, over which data, and which direction means what"]
    samples: Annotated[int, "number of samples that the value is a mean over"]
    library: Annotated[str, "what computed it, with versions"] = ""
    details: Annotated[dict[str, Any], "numbers and settings that go with the value", "detail"] = field(
        default_factory=dict
    )
    role: Annotated[
        Role | None, "part it is about and whether less is better; null where the name of the metric says so"
    ] = None

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


def difference_interval(first: tuple[float, int], second: tuple[float, int]) -> tuple[float, float]:
    """Return the 95 % interval of the difference first - second of two shares, each (share, number of samples).

    It combines the two Wilson intervals (Newcombe 1998, Statistics in Medicine 17, method 10) and takes the samples of
    the two for independent, which makes it too wide, never too narrow, where both models met the same samples.

    Raises:
        ValueError: one of the two has no samples.
    """
    (p, _), (q, _) = first, second
    (p_low, p_high), (q_low, q_high) = share_interval(*first), share_interval(*second)
    return p - q - math.hypot(p - p_low, q_high - q), p - q + math.hypot(p_high - p, q - q_low)


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


def share_text(share: float, samples: int) -> str:
    """Return a share in % with its 95 % interval (`share_interval`), or without one if the samples are not known.

    "100.0% [70.1, 100.0]" is all of nine.
    """
    if samples < 1:
        return f"{share:.1%}"
    low, high = share_interval(share, samples)
    return f"{share:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def role_of(name: str) -> Role:
    """The role that a metric's name says; `OTHER` for a name that says nothing."""
    return next((role for start, role in ROLES.items() if name.startswith(start)), OTHER)


def is_attack(name: str) -> bool:
    """Whether the metric of this name is what an attack found: a share that it recovered, or steps of relearning."""
    return name.startswith(ATTACKS)


def is_share(name: str) -> bool:
    """Whether the metric of this name is a share in [0, 1], which is shown in %.

    Those are accuracies and shares, also with the name of a sampler or of a reading at the end or of held-out prompts,
    and what attacks recovered.
    """
    named = (
        re.search(r"_(accuracy|share)(_(latents|clip|ddim|ddpm))?$", name.removesuffix(HELD_OUT_PROMPTS)) is not None
    )
    return named or name.startswith(("mia_", "precision", "recall", "recovered_"))
