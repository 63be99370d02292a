"""Metrics of other packages: entry points of the group `hf_unlearn.metrics`.

A package registers a metric in its pyproject.toml, under the name that cards and `hf-unlearn check` show:

    [project.entry-points."hf_unlearn.metrics"]
    sharpness_retain = "my_package.metrics:sharpness"

The entry point is a function of the contract `MeasureMetric`, or a `RegisteredMetric` around one, which also says what
the metric is about. A name that ends in `_share` or `_accuracy` is a share from 0 to 1. A name that begins with one of
`metric.ROLES` has its role.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

import torch

from ..families.base import Objective
from .metric import PARTS, Metric, Role

GROUP = "hf_unlearn.metrics"


class MeasureMetric(Protocol):
    """What an entry point is called with."""

    def __call__(self, *, model: Any, kinds: tuple[str, ...], forget: Any, retain: Any, seed: int) -> Metric | None:
        """Measure one model, and leave it as it was.

        Args:
            model: the diffusers pipeline or the transformers classifier, its network in eval mode.
            kinds: kinds of its family, such as ("diffusion", "text to image") or ("classifier",).
            forget, retain: data sets of {"pixel_values", "labels"}; latents and prompt numbers for text to image.
            seed: random seed. torch's global generator is seeded with it for the call and restored afterwards.

        Returns:
            None where the metric does not apply to this kind of model.
        """


@dataclass(frozen=True)
class RegisteredMetric:
    """A metric with its role, which its values then carry into records.

    measure: the function.
    role: what the metric is about and whether less is better; None if its name says so.
    """

    measure: MeasureMetric
    role: Role | None = None

    def __post_init__(self):
        if self.role is not None and self.role.part not in PARTS:
            raise ValueError(f"the part of a role must be one of {', '.join(PARTS)}, got {self.role.part!r}")


def registered_metrics() -> dict[str, RegisteredMetric]:
    """The metrics of all installed packages, by name.

    Raises:
        ValueError: an entry point does not load, is no function, or two have one name.
    """
    found: dict[str, RegisteredMetric] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        if entry.name in found:
            raise ValueError(f"two packages register the metric {entry.name}: uninstall one of them")
        found[entry.name] = _loaded(entry)
    return found


def _loaded(entry: EntryPoint) -> RegisteredMetric:
    try:
        target = entry.load()
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"the metric {entry.name} ({entry.value}) does not load: {error}") from error
    if isinstance(target, RegisteredMetric):
        return target
    if not callable(target):
        raise ValueError(f"the metric {entry.name} ({entry.value}) is a {type(target).__name__}, not a function")
    return RegisteredMetric(target)


def extra_metrics(objective: Objective, forget: Any, retain: Any, seed: int) -> dict[str, Metric]:
    """Measure the registered metrics that apply to the objective's model as it is now, by name.

    Raises:
        ValueError: an entry point does not load, or returns no Metric.
    """
    found: dict[str, Metric] = {}
    for name, metric in registered_metrics().items():
        measured = _measured(metric.measure, objective, forget, retain, seed)
        if measured is None:
            continue
        if not isinstance(measured, Metric):
            raise ValueError(f"the metric {name} returned a {type(measured).__name__}, not a Metric or None")
        found[name] = measured if measured.role is not None else replace(measured, role=metric.role)
    return found


def joined(own: Mapping[str, Metric], extra: Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics of a command, then those of other packages.

    Raises:
        ValueError: a registered metric has the name of one of the command's.
    """
    both = sorted(own.keys() & extra.keys())
    if both:
        raise ValueError(f"a package registers the metric {both[0]}, which hf-unlearn measures itself: rename it")
    return {**own, **extra}


def _measured(measure: MeasureMetric, objective: Objective, forget: Any, retain: Any, seed: int) -> Metric | None:
    """Call once; afterwards modes and random numbers are as before."""
    modes = [(module, module.training) for module in objective.modules()]
    objective.eval()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return measure(model=objective.exported, kinds=objective.kinds, forget=forget, retain=retain, seed=seed)
    finally:
        for module, training in modes:
            module.training = training
