"""How a model was made, as sentences: trained weights, label dropout, timesteps, anchors, and the metrics' sampler."""

from dataclasses import dataclass

from ..families.description import Description
from .reading import from_json
from .record import RunRecord, WeightsRecord


@dataclass
class Sampler:
    """How samples were generated, from the details of a metric; None where they do not say."""

    num_inference_steps: int
    scheduler: str | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    samples_per_class: int | None = None
    height: int | None = None
    width: int | None = None


def how_it_was_made(record: RunRecord) -> list[str]:
    """Sentences for the card and the page; what the record does not know has none."""
    said = []
    if record.weights is not None:
        said += trained_weights(record.weights, record.objective)
    if record.objective is not None:
        said += draws(record.objective)
        if record.objective.anchor_rule:
            rule = record.objective.anchor_rule
            said.append(f"Where a loss matches a forget sample to an anchor, the anchor is {rule}.")
    sampler = sampler_of(record)
    if sampler is not None:
        said.append(generation(sampler))
    return said


def sampler_of(record: RunRecord) -> Sampler | None:
    """How the samples of the unlearned model were generated, or None where no metric was taken on samples.

    Raises:
        ValueError: a setting has another type.
    """
    for name, metric in record.figures.get("after", {}).items():
        if "num_inference_steps" in metric.details:
            return from_json(Sampler, metric.details, f"figures.after.{name}.details")
    return None


def trained_weights(weights: WeightsRecord, objective: Description | None) -> list[str]:
    """Which weights could move, and how many did."""
    if weights.trained == "adapter":
        said = (
            f"An adapter of the {weights.network} was trained, with {_percent(weights.trained_share)} as many weights"
        )
    elif weights.trained == "all":
        said = f"All weights of the {weights.network} were trained"
    else:
        count = "" if weights.trained_weights is None else f", {weights.trained_weights:,} of {weights.total:,},"
        said = f"{_percent(weights.trained_share)} of the weights of the {weights.network}{count} were trained"
    method = objective.train_method if objective is not None else None
    named = f" (`train_method` {method})" if method else ""
    moved = [] if weights.moved_share is None else [f"{_percent(weights.moved_share)} of all weights moved."]
    return [f"{said}{named}.", *moved]


def draws(objective: Description) -> list[str]:
    """Null labels and timesteps."""
    said = []
    if objective.null_class is not None and objective.label_dropout is not None:
        forget = "forget samples too" if objective.forget_label_dropout else "forget samples never"
        said.append(
            f"{_percent(objective.label_dropout)} of the retain samples got the null label "
            f"({objective.null_class}), {forget}."
        )
    if objective.antithetic is not None:
        pairs = "in pairs, t and T-1-t" if objective.antithetic else "independently"
        said.append(f"Timesteps were drawn {pairs}.")
    return said


def generation(sampler: Sampler) -> str:
    """How the samples behind the metrics were generated."""
    parts = [
        sampler.scheduler or "a scheduler that is not recorded",
        f"{sampler.num_inference_steps} inference steps",
        *([f"guidance scale {sampler.guidance_scale:g}"] if sampler.guidance_scale is not None else []),
        *([f"seed {sampler.seed}"] if sampler.seed is not None else []),
        *([f"{sampler.samples_per_class} samples of each class"] if sampler.samples_per_class is not None else []),
    ]
    return f"Samples for the metrics were generated with {', '.join(parts)}."


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
