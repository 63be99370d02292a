"""What a card says that depends on the figures: the table, what got worse."""

from typing import Any

from ..evaluation.metric import is_share, role_of, share_interval
from ..evaluation.tables import markdown_table
from .record import RunRecord
from .verdict import shown

MODELS = ("before", "after", "retrained")
WRITTEN = {"clip": "CLIP", "frechet": "Frechet", "js": "JS", "kl": "KL", "mia": "MIA", "svc": "SVC"}


def title(figure: str) -> str:
    """A figure's name in words."""
    return " ".join(WRITTEN.get(word, word) for word in figure.split("_"))


def card_table(record: RunRecord) -> str:
    """A row a figure, a column a model; shares with their 95 % interval (`share_interval`)."""
    models = [model for model in dict.fromkeys((*MODELS, *record.figures)) if model in record.figures]
    names = dict.fromkeys(name for model in models for name in record.figures[model])

    def cell(name: str, metric: dict[str, Any]) -> str:
        value = metric.get("value")
        if value is None:
            return "-"
        if not is_share(name) or metric["samples"] < 1:
            return shown(name, value)
        low, high = share_interval(value, metric["samples"])
        return f"{value:.1%} [{100 * low:.1f}, {100 * high:.1f}]"

    rows = [[title(name), *(cell(name, record.figures[model].get(name, {})) for model in models)] for name in names]
    return markdown_table(["figure", *models], rows)


def definitions(record: RunRecord) -> list[dict[str, Any]]:
    """name, definition, samples and library of every figure, for the list under the table."""
    every: dict[str, dict[str, Any]] = {}
    for figures in record.figures.values():
        every = {**figures, **every}
    return [{"name": title(name), **metric} for name, metric in every.items()]


def change(record: RunRecord, figure: str) -> str:
    """What became of a figure, as "forget accuracy fell from 100.0% to 0.0% (retrained: 2.0%)"."""
    before, after, retrained = (record.figure(model, figure) for model in MODELS)
    aside = "" if retrained is None else f" (retrained: {shown(figure, retrained)})"
    if before is None or after is None:
        return f"{title(figure)} is {shown(figure, after)}{aside}"
    if shown(figure, before) == shown(figure, after):
        return f"{title(figure)} stayed at {shown(figure, after)}{aside}"
    verb = "fell" if after < before else "rose"
    return f"{title(figure)} {verb} from {shown(figure, before)} to {shown(figure, after)}{aside}"


def failures(record: RunRecord) -> list[str]:
    """Sentences on what the figures show against the model: worse retention, remains, ways to tell it from retrained.

    A distance to the retrained model counts where it grew, a membership figure where the retrained model's value lies
    outside the interval of the unlearned one's.
    """
    found = []
    for name, metric in record.figures.get("after", {}).items():
        (role, less), value = role_of(name), metric["value"]
        before, retrained = record.figure("before", name), record.figure("retrained", name)
        if value is None:
            continue
        if role == "retain" and less is not None and before is not None:
            worse = value > before if less else value < before
            if worse and shown(name, value) != shown(name, before):
                found.append(f"{change(record, name)}.")
        if role == "forget" and less and retrained is not None and value > retrained:
            found.append(f"{title(name)} is {shown(name, value)}, above a retrained model's {shown(name, retrained)}.")
        distance = name.endswith("_to_retrained") or (role == "privacy" and less is True)
        if distance and before is not None and value > before and shown(name, value) != shown(name, before):
            found.append(f"{change(record, name)}, farther from a retrained model.")
        if role == "privacy" and is_share(name) and retrained is not None:
            low, high = share_interval(value, metric["samples"])
            if not low <= retrained <= high:
                found.append(
                    f"{title(name)} tells the model from a retrained one: {shown(name, value)} against "
                    f"{shown(name, retrained)}."
                )
    kept = [row for row in record.per_class if not row["forget"] and None not in (row["before"], row["after"])]
    if kept:
        worst = max(kept, key=lambda row: row["before"] - row["after"])
        if worst["after"] < worst["before"]:
            found.append(
                f"of the retained classes, {worst['name']} lost most: {worst['before']:.1%} to {worst['after']:.1%}."
            )
    return [f"{text[0].upper()}{text[1:]}" for text in found]
