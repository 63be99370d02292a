"""A run's record as one HTML page that needs nothing else: no network, no script, pictures inside."""

import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from .. import __version__
from ..evaluation.metric import is_attack
from ..evaluation.neighbours import NAME as NEIGHBOURS
from ..saliency.layers import by_prefix
from .badge import COLOURS
from .card_text import failures
from .charts import bars, heat_map, line_chart
from .loading import UNUSUAL, code_blocks, command_of, loading, recipe_flags, usual_options
from .made import how_it_was_made
from .outcome import outcome
from .pictures import course_of, pictures_of
from .reading_figures import is_number
from .record import EnvironmentRecord, HistoryEntry, RunRecord
from .recovery import ROLES, recoveries, shown_value
from .risk import FIRST, residual_risk
from .tiles import interval_of, tiles
from .verdict import headline_metric, in_words, limits, shown, verdict

PAGE_FILE = "report.html"
Points = list[tuple[float, float | None]]
MODELS = ("before", "after", "retrained")
AIMS = {"forget": "forgets more"}  # which is not better below what a retrained model has
SHOWN_CLASSES = 24  # bars in view; the other classes are folded away


def page(record: RunRecord, folder: str | Path) -> str:
    """HTML. `folder` is the run's, where the picture lies; what the record lacks has no section.

    Raises:
        ValueError: the record's picture is not one, or lies outside of the folder.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError

    templates = Environment(
        loader=PackageLoader("hf_unlearn.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"words": in_words, "value": _value, "facts": _facts, "spans": _spans, "tight": _tight}
    found, recipe = outcome(record), recipe_flags(record)
    said = dict(
        record=record,
        version=__version__,
        outcome=found,
        colour=COLOURS[found.state],
        verdict=verdict(record),
        limits=limits(record),
        models=[m for m in MODELS if m in record.figures] + [m for m in record.figures if m not in MODELS],
        metrics=metric_rows(record),
        attacks=attack_rows(record),
        neighbours=neighbour_maps(record),
        made=how_it_was_made(record),
        classes=class_sections(record),
        curves=loss_curves(record),
        layers=[(*row, bars([("after", row[2])])) for row in by_prefix(record.mask.layers)],
        tiles=tiles(record),
        pictures=pictures_of(record, folder),
        course=course_of(folder),
        failures=failures(record),
        risk=FIRST,
        risks=residual_risk(record),
        snippets=code_blocks(loading(record, Path(folder).resolve().name)) if record.loads_with else [],
        command=command_of(record),
        recipe=recipe,
        unusual=_unusual(record, recipe),
    )
    try:
        return templates.get_template("report.html").render(said)
    except UndefinedError as error:
        raise ValueError(f"the record lacks what a page says: {error}") from error


def _unusual(record: RunRecord, recipe: list[str]) -> str:
    """How many values of the recipe are not the defaults, in words; "" where the defaults are not known."""
    if not usual_options(record.method.name):
        return ""
    count = sum(UNUSUAL in line for line in recipe)
    return f", {count} of them not the default" if count else ", the method's all by default"


def metric_rows(record: RunRecord) -> list[dict[str, Any]]:
    """A row for each metric: name, cells by model, which direction is better, and what its footnote says."""
    rows = []
    for name in dict.fromkeys(name for row in record.figures.values() for name in row if not is_attack(name)):
        found = {model: row[name] for model, row in record.figures.items() if name in row}
        first, (part, less) = next(iter(found.values())), record.role(name)
        counts = {metric.samples for metric in found.values()}
        rows.append(
            {
                "name": in_words(name),
                "cells": {model: shown(name, metric.value) for model, metric in found.items()},
                "intervals": {model: interval_of(name, m.value, m.samples) for model, m in found.items()},
                "part": part,
                "better": "" if less is None else f"{'lower' if less else 'higher'} {AIMS.get(part, 'is better')}",
                "headline": name in (headline_metric(record, "forget"), headline_metric(record, "retain")),
                "definitions": list(dict.fromkeys(metric.definition for metric in found.values())),
                "samples": " / ".join(f"{n:,}" for n in sorted(counts)),
                "library": first.library,
                "details": {key: value for key, value in first.details.items() if key != "matrix"},
            }
        )
    return rows


def attack_rows(record: RunRecord) -> list[dict[str, Any]]:
    """A row for each attack: its name, what it found on the model and on each control, its budget, how to read it."""
    return [
        {
            "name": read.name,
            "budget": read.budget,
            "cells": [shown_value(read), *(shown_value(read, role) for role in ROLES)],
            "back": read.counts,
            "reading": read.result,
        }
        for read in recoveries(record)
    ]


def neighbour_maps(record: RunRecord) -> list[dict[str, Any]]:
    """{"model", "chart"} of each retention matrix that is one."""
    found = []
    for model in ("before", "after"):
        metric = record.figures.get(model, {}).get(NEIGHBOURS)
        names, matrix = (
            (metric.details.get(key) for key in ("asked", "matrix")) if metric is not None else (None, None)
        )
        if not isinstance(names, list) or not isinstance(matrix, list):
            continue
        rows = [row for row in matrix if isinstance(row, list) and len(row) == len(names) and all(map(is_number, row))]
        if names and len(rows) == len(matrix) == len(names):
            found.append({"model": model, "chart": heat_map([str(name) for name in names], rows, model)})
    return found


def class_sections(record: RunRecord) -> dict[str, Any]:
    """{"models", "shown", "folded"}: forgotten classes first, then those that changed most, the rest folded away."""
    rows: list[dict[str, Any]] = [
        {
            "name": row.name,
            "forget": row.forget,
            "cells": {model: shown("class_share", row.share(model)) for model in MODELS},
            "bars": bars([("before", row.before), ("after", row.after)], row.retrained),
            "change": abs((row.after or 0.0) - (row.before or 0.0)),
        }
        for row in record.per_class
    ]
    others = [i for i, row in enumerate(rows) if not row["forget"]]
    room = max(SHOWN_CLASSES - (len(rows) - len(others)), 0)
    kept = set(sorted(others, key=lambda i: -rows[i]["change"])[:room])
    return {
        "models": [m for m in MODELS if any(row.share(m) is not None for row in record.per_class)],
        "shown": [row for row in rows if row["forget"]] + [rows[i] for i in others if i in kept],
        "folded": [rows[i] for i in others if i not in kept],
    }


def loss_curves(record: RunRecord) -> list[dict[str, Any]]:
    """{"name", "chart"} of every loss in the log; `loss` only where it is none of the others."""
    names = [n for n in dict.fromkeys(k for row in record.log for k in row) if n.endswith("loss")]
    series = {n: [(row["step"] or 0.0, row[n]) for row in record.log if n in row] for n in names}
    series = {n: points for n, points in series.items() if any(y is not None for _, y in points)}
    if any(_alike(points, series["loss"]) for n, points in series.items() if n != "loss" and "loss" in series):
        del series["loss"]
    return [{"name": in_words(n), "chart": line_chart(points, in_words(n))} for n, points in series.items()]


def _alike(first: Points, second: Points) -> bool:
    """Whether two curves differ by no more than rounding would."""
    pairs = [(a, b) for (_, a), (_, b) in zip(first, second) if a is not None and b is not None]
    return len(pairs) == len(first) == len(second) and all(math.isclose(a, b, rel_tol=1e-5) for a, b in pairs)


def _facts(entry: HistoryEntry | EnvironmentRecord) -> list[tuple[str, Any]]:
    """(name, value) of the fields that say something."""
    return [(name, value) for name, value in asdict(entry).items() if value not in ("", None)]


def _spans(sentence: str) -> Markup:
    """A sentence of ours with its code marked up; everything else in it is text."""
    parts = re.split(r"`([^`]*)`", sentence)
    return Markup("").join(Markup("<code>{}</code>").format(p) if k % 2 else escape(p) for k, p in enumerate(parts))


def _tight(text: str) -> str:
    """A text in which no line begins with the sign of a number."""
    return text.replace(" %", "\u00a0%")


def _value(value: Any) -> str:
    """A setting as text: JSON for lists and mappings, words for the rest."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
