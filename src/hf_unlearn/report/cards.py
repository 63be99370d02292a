"""The README.md of a result: front matter for the Hub and a marked section for people, filled from the run's record.

What stands outside the marks, and front matter that is not ours, belongs to others (the base model's authors, the
user) and is kept.
"""

import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import yaml_dump

from ..common.files import write_text
from ..evaluation.metric import is_share
from ..hub.origin import LICENCE_KEYS
from .badge import BADGE_FILE, write_badge
from .card_text import attack_table, card_table, definitions, failures, mask_sentence
from .escaping import FILTERS
from .eval_results import eval_results, hub_datasets, write_entries
from .loading import command_of, loading, recipe_flags
from .made import how_it_was_made
from .outcome import outcome
from .record import RunRecord
from .risk import FIRST, residual_risk
from .verdict import verdict

CARD_FILE = "README.md"
BEGIN, END = "<!-- hf_unlearn:begin -->", "<!-- hf_unlearn:end -->"
METHOD_TAG = "method:"
TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"


def write_card(folder: str | Path, record: RunRecord, repo: str | None = None) -> Path:
    """Write or update README.md of a result, its badge and its `.eval_results`; returns the path of the card.

    Args:
        repo: the id it will be loaded by, if it is published; default the folder's name.

    Raises:
        ValueError: the README.md that is there cannot be updated; it stays as it is.
    """
    folder = Path(folder)
    path = folder / CARD_FILE
    write_text(path, updated_card(folder, record, repo))
    write_badge(folder, outcome(record))
    write_entries(folder, record)
    return path


def updated_card(folder: Path, record: RunRecord, repo: str | None = None) -> str:
    """The text that `write_card` writes.

    Raises:
        ValueError: the README.md that is there cannot be updated.
    """
    path = folder / CARD_FILE
    existing = path.read_bytes().decode("utf-8-sig") if path.is_file() else ""
    try:
        return model_card(record, repo or folder.resolve().name, existing)
    except ValueError as error:
        raise ValueError(f"{path} cannot be updated: {error}") from error


def model_card(record: RunRecord, name: str, existing: str = "") -> str:
    """The card's text: that of `existing` with our fields and our section in it.

    Args:
        name: the repository's id or the folder's name.

    Raises:
        ValueError: `existing` has front matter that is not a model card's, or half of our marks.
    """
    old, body = split_card(existing)
    if old:
        ModelCard(existing)  # raises a ValueError for results that cannot be read, and so not kept
    data = merge_front_matter(old, front_matter(record, name))
    text = f"---\n{yaml_dump(data, sort_keys=False)}---\n{place(section(record, name, data), body)}"
    ModelCard(text)  # raises a ValueError for what the Hub would not read
    return text


# ---- front matter ----------------------------------------------------------------------------
def split_card(content: str) -> tuple[dict[str, Any], str]:
    """(front matter, text) of a card; raises ValueError if the first is not a mapping."""
    match = REGEX_YAML_BLOCK.search(content)
    if match is None:
        return {}, content
    try:
        data = yaml.safe_load(match.group(2))
    except yaml.YAMLError as error:
        raise ValueError(f"its front matter is not YAML ({error})") from error
    if data is not None and not isinstance(data, dict):
        raise ValueError("its front matter is not a mapping")
    return data or {}, content[match.end() :]


def front_matter(record: RunRecord, name: str) -> dict[str, Any]:
    """What the record says, under the Hub's keys. The licence is the base model's, or none: it is never made up."""
    base, adapter = record.base_model, record.library_name == "peft"
    relation: dict[str, Any] = {"base_model_relation": "adapter" if adapter else "finetune"} if base.on_hub else {}
    methods = dict.fromkeys([*(run.method for run in record.history if run.method), record.method.name])
    tags = ["hf-unlearn", "machine-unlearning", *(METHOD_TAG + method for method in methods)]
    results = eval_results(record)
    return ModelCardData(
        **base.licence,
        base_model=base.name if base.on_hub else None,
        **relation,
        library_name=record.library_name,
        pipeline_tag=record.pipeline_tag,
        tags=[*tags, "concept-erasure"] if record.pipeline_tag == "text-to-image" else tags,
        datasets=hub_datasets(record) or None,
        model_name=name.split("/")[-1] if results else None,
        eval_results=results or None,
    ).to_dict()


def merge_front_matter(old: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """`old` with our fields. Lists grow, a licence that is there stays, no key goes."""
    licensed = any(key in old for key in LICENCE_KEYS)
    merged = {**old, **{key: value for key, value in ours.items() if not (licensed and key in LICENCE_KEYS)}}
    for key in ("tags", "datasets"):
        kept = [value for value in _listed(old.get(key)) if not str(value).startswith(METHOD_TAG)]
        both = [*kept, *_listed(ours.get(key))]
        if both:
            merged[key] = list(dict.fromkeys(both))
    if "model-index" in old:
        merged["model-index"] = merge_index(old["model-index"], ours.get("model-index", []))
    return merged


def merge_index(old: list[dict[str, Any]], ours: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of `old` that ours do not replace (same task, data set and metric), then ours."""

    def keys(result: dict[str, Any]) -> list[tuple]:
        on = result["dataset"]
        place = (result["task"]["type"], on["type"], on.get("config"), on.get("split"))
        return [(*place, metric["type"], metric.get("name")) for metric in result["metrics"]]

    new = {key for model in ours for result in model["results"] for key in keys(result)}
    kept = []
    for model in old:
        results = []
        for result in model["results"]:
            metrics = [m for m, key in zip(result["metrics"], keys(result)) if key not in new]
            results += [{**result, "metrics": metrics}] if metrics else []
        kept += [{**model, "results": results}] if results else []
    return [*kept, *ours]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


# ---- text ------------------------------------------------------------------------------------
def section(record: RunRecord, name: str, data: dict[str, Any]) -> str:
    """Our part of the text between its marks. `data` is the front matter, whose licence the text repeats."""
    import jinja2

    inherited = record.base_model.licence
    metrics = {name for row in record.figures.values() for name in row}
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters.update(FILTERS)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    said = dict(
        run=record,
        name=name,
        licence=data.get("license_name") or data.get("license"),
        link=data.get("license_link"),
        inherited=bool(inherited) and all(data.get(key) == value for key, value in inherited.items()),
        table=card_table(record),
        outcome=outcome(record),
        badge=BADGE_FILE,
        verdict=verdict(record),
        definitions=definitions(record),
        failures=failures(record),
        metrics=metrics,
        shares=any(is_share(name) for name in metrics),
        attacks=attack_table(record),
        risk=FIRST,
        risks=residual_risk(record),
        use=loading(record, name),
        command=command_of(record),
        recipe=recipe_flags(record),
        made=how_it_was_made(record),
        mask=mask_sentence(record),
    )
    try:
        text = template.render(said)
    except jinja2.UndefinedError as error:
        raise ValueError(f"the record lacks what a card says: {error}") from error
    return f"{BEGIN}\n{text.strip()}\n{END}"


def place(ours: str, body: str) -> str:
    """`body` with our section: where the marks are, each alone on its line, else ahead of it.

    Raises:
        ValueError: one of the two marks is missing.
    """
    begins, ends = ([m.start() for m in re.finditer(f"^{re.escape(mark)}\\s*$", body, re.M)] for mark in (BEGIN, END))
    if not begins and not ends:
        return f"{ours}\n\n{body.lstrip()}" if body.strip() else f"{ours}\n"
    if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
        raise ValueError(f"it must hold {BEGIN} and then {END} once each, or neither: mend the marks")
    return body[: begins[0]] + ours + body[ends[0] + len(END) :]
