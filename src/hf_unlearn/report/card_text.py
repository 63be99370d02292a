"""The sentences and the table of a card that depend on the metrics: what was measured, what got worse."""

import json
from typing import Any

from ..evaluation.metric import Metric, is_attack, is_share, share_interval
from ..evaluation.tables import markdown_table
from .escaping import markdown
from .forgetting import is_unsafe
from .made import sampler_of
from .outcome import outcome
from .record import FORGOTTEN, RunRecord
from .recovery import ROLES, recoveries, shown_value
from .retained import WORSE, WORSE_RATIO, fell, worse
from .verdict import shown

MODELS = ("before", "after", "retrained")
WRITTEN = {"clip": "CLIP", "frechet": "Frechet", "js": "JS", "kl": "KL", "mia": "MIA", "svc": "SVC"}


def title(metric: str) -> str:
    """A metric's name in words."""
    return " ".join(WRITTEN.get(word, word) for word in metric.split("_"))


def card_table(record: RunRecord) -> str:
    """A table with a row for each metric and a column for each model.

    Shares have their 95 % interval (`share_interval`).
    """
    models = [model for model in dict.fromkeys((*MODELS, *record.figures)) if model in record.figures]
    names = dict.fromkeys(name for model in models for name in record.figures[model] if not is_attack(name))

    def cell(name: str, metric: Metric | None) -> str:
        if metric is None or metric.value is None:
            return "-"
        if not is_share(name) or metric.samples < 1:
            return shown(name, metric.value)
        low, high = share_interval(metric.value, metric.samples)
        return f"{metric.value:.1%} [{100 * low:.1f}, {100 * high:.1f}]"

    rows = [
        [markdown(title(name)), *(cell(name, record.figures[model].get(name)) for model in models)] for name in names
    ]
    return markdown_table(["metric", *models], rows)


def definitions(record: RunRecord) -> list[dict[str, Any]]:
    """name, definition, samples and library of every metric, for the list under the table."""
    every: dict[str, Metric] = {}
    for metrics in record.figures.values():
        every = {**metrics, **every}
    return [
        {"name": title(name), "definition": m.definition, "samples": m.samples, "library": m.library}
        for name, m in every.items()
        if not is_attack(name)
    ]


def attack_table(record: RunRecord) -> str:
    """A table with a row for each attack and a column for the model and each control; "" where none was run."""
    rows = [
        [
            markdown(read.name),
            *(shown_value(read, role) for role in (None, *ROLES)),
            markdown(read.budget),
            markdown(read.result),
        ]
        for read in recoveries(record)
    ]
    return markdown_table(["attack", "recovered", *ROLES, "budget", "reading"], rows) if rows else ""


def change(record: RunRecord, metric: str) -> str:
    """What became of a metric, as "forget accuracy fell from 100.0% to 0.0% (retrained: 2.0%)"."""
    before, after, retrained = (record.value(model, metric) for model in MODELS)
    aside = "" if retrained is None else f" (retrained: {shown(metric, retrained)})"
    if before is None or after is None:
        return f"{title(metric)} is {shown(metric, after)}{aside}"
    if shown(metric, before) == shown(metric, after):
        return f"{title(metric)} stayed at {shown(metric, after)}{aside}"
    verb = "fell" if after < before else "rose"
    return f"{title(metric)} {verb} from {shown(metric, before)} to {shown(metric, after)}{aside}"


def mask_sentence(record: RunRecord) -> str:
    """What was in the mask, of which weights, and when it held."""
    mask, weights = record.mask, record.weights
    if mask.density is None:
        return "There was no mask: every trained weight was free to move."
    count = sum(row.weights for row in mask.layers)
    whole = weights is None or weights.trained == "all"
    network = "" if weights is None else f" of the {weights.network}"
    named = f"{count:,} " if count else ""
    said = [f"{mask.density:.1%} of the {named}trained weights{network} were in the mask".replace("%", " %", 1)]
    if weights is not None and not whole and count:
        said[0] += f", which is {100 * mask.density * count / weights.total:.3g} % of all its weights"
    if mask.every_step is not None:
        said.append(
            "It held for all steps" if mask.every_step else "It held for forget steps; retain steps move all of them"
        )
    if mask.drift is None:
        said.append("Whether a forget step moved a weight outside the mask was not measured")
    else:
        said.append(f"The largest drift of a weight outside the mask in a forget step was {mask.drift:.3g}")
    return f"{'. '.join(said)}."


def scheduler_class(record: RunRecord) -> str:
    """The scheduler that the samples of the metrics, or else the model, were made with."""
    sampler = sampler_of(record)
    saved = record.objective.scheduler if record.objective is not None else None
    return (sampler.scheduler if sampler is not None else None) or saved or "DDIMScheduler"


def generation_call(record: RunRecord) -> str:
    """A line of Python that generates as for the metrics; "" where none was taken on samples and `pipe` may be
    called as the library's own examples say."""
    sampler = sampler_of(record)
    kind = record.loads_with[0] if record.loads_with else ""
    by_class = kind in ("ClassConditionalDDPMPipeline", "DiTPipeline")
    if sampler is None and kind != "ClassConditionalDDPMPipeline":
        return ""
    retained = [row.name for row in record.per_class if not row.forget and row.name.isdecimal()]
    options = [f"class_labels=[{', '.join(retained[:3]) or 0}]"] if by_class else []
    if record.pipeline_tag == "text-to-image":
        options.append(json.dumps(asked_prompt(record), ensure_ascii=False))
    guided = by_class or record.pipeline_tag == "text-to-image"
    for name in ("guidance_scale", "num_inference_steps", "height", "width") if sampler is not None else ():
        value = getattr(sampler, name)
        if value is not None and (guided or name == "num_inference_steps"):
            options.append(f"{name}={value:g}")
    return f"images = pipe({', '.join(options)}).images"


def asked_prompt(record: RunRecord) -> str:
    """A prompt that shows what was forgotten; a harmless one where that is unsafe or no prompt is known."""
    anchors = record.objective.anchors if record.objective is not None else []
    return "a mountain landscape at sunset" if not anchors or is_unsafe(record) else anchors[0][0]


def failures(record: RunRecord) -> list[str]:
    """Sentences on what the metrics show against the model; none only where the run is FORGOTTEN.

    The outcome first if it is another. Then retention that got worse beyond its interval or tolerance (`retained`),
    what remains of the forgotten, and what tells the model from a retrained one. A distance to the retrained model
    counts where it grew, a membership metric where the retrained model's value lies outside the interval of the
    unlearned one's.
    """
    end = outcome(record)
    found = [] if end.state == FORGOTTEN else [f"{end.state.lower()}: {end.evidence}."]
    retained = worse(record)
    found += [line for name in record.figures.get("after", {}) for line in _against(record, name, name in retained)]
    lost = [
        (row.before - row.after, row.before, row.after, row.name)
        for row in record.per_class
        if not row.forget and row.before is not None and row.after is not None
    ]
    if lost:
        drop, before, after, name = max(lost, key=lambda row: row[0])
        if fell(before, after, _samples_of_a_class(record), WORSE):
            found.append(f"of the retained classes, {name} lost most: {before:.1%} to {after:.1%}.")
    return [f"{text[0].upper()}{text[1:]}" for text in found]


def _samples_of_a_class(record: RunRecord) -> int | None:
    """Samples behind a row of `per_class`, where every retained class had as many; None if that is not known."""
    classes = sum(not row.forget for row in record.per_class)
    metric = record.figures.get("after", {}).get("retain_accuracy")
    return None if metric is None or metric.samples < classes else metric.samples // classes


def _against(record: RunRecord, name: str, worse: bool) -> list[str]:
    """What one metric shows against the model; `worse` if it is one of the retained that got worse."""
    (part, less), value = record.role(name), record.value("after", name)
    before, retrained = record.value("before", name), record.value("retrained", name)
    if value is None:
        return []
    found = []
    rose = before is not None and value > WORSE_RATIO * before
    if worse:
        found.append(f"{change(record, name)}.")
    if part == "forget" and less and retrained is not None and value > retrained:
        found.append(f"{title(name)} is {shown(name, value)}, above a retrained model's {shown(name, retrained)}.")
    if (name.endswith("_to_retrained") or (part == "privacy" and less is True)) and rose:
        found.append(f"{change(record, name)}, farther from a retrained model.")
    samples = record.figures["after"][name].samples
    if part == "privacy" and is_share(name) and retrained is not None and samples > 0:
        low, high = share_interval(value, samples)
        if not low <= retrained <= high:
            found.append(
                f"{title(name)} tells the model from a retrained one: {shown(name, value)} against "
                f"{shown(name, retrained)}."
            )
    return found
