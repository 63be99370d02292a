"""The metrics of the unlearned model as the Hub reads them: `model-index` results and `.eval_results` entries."""

import re
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from ..common.files import write_text
from ..common.names import is_hub_id
from .record import RunRecord

ENTRIES_FILE = ".eval_results/hf_unlearn.yaml"


def hub_datasets(record: RunRecord) -> list[str]:
    """Ids of the data that come from the Hub; a name without its owner could also be a folder's, and is none."""
    sources = [part.source for part in record.data.values()]
    return list(dict.fromkeys(source for source in sources if source and "/" in source and is_hub_id(source)))


def measured_on(record: RunRecord, metric: str) -> tuple[str, str] | None:
    """(part, source) of the data behind a forget or retain metric; None for other metrics and for unnamed data."""
    part = record.role(metric).part
    if part not in ("forget", "retain"):
        return None
    if "test" in metric.split("_"):
        part = "test"
    data = record.data.get(part)
    return None if data is None or data.source is None else (part, data.source)


def eval_results(record: RunRecord) -> list[EvalResult]:
    """A result for each forget and retain metric of the unlearned model whose data has a name."""
    results = []
    for name, metric in record.figures.get("after", {}).items():
        on = measured_on(record, name)
        if on is None or metric.value is None:
            continue
        part, source = on
        results.append(
            EvalResult(
                task_type=record.pipeline_tag,
                dataset_type=source
                if is_hub_id(source)
                else re.sub(r"[^a-z0-9]+", "-", source.lower()).strip("-") or "data",
                dataset_name=f"{source} ({part})",
                dataset_split=part,
                metric_type="accuracy" if name.endswith("_accuracy") else name,
                metric_name=name.replace("_", " "),
                metric_value=metric.value,
                metric_args={"samples": metric.samples},
            )
        )
    return results


def eval_entries(record: RunRecord) -> list[EvalResultEntry]:
    """The same for `.eval_results`, which takes only data sets of the Hub; task_id is the metric's name."""
    entries = []
    for name, metric in record.figures.get("after", {}).items():
        on = measured_on(record, name)
        if on is None or metric.value is None or on[1] not in hub_datasets(record):
            continue
        notes = f"{record.forgotten} forgotten with {record.method.name}; {metric.definition}"
        entries.append(EvalResultEntry(on[1], name, metric.value, date=record.created, notes=notes))
    return entries


def write_entries(folder: str | Path, record: RunRecord) -> Path | None:
    """Write ENTRIES_FILE to `folder`, or remove the one of an earlier run if there is nothing to say; its path."""
    path, entries = Path(folder) / ENTRIES_FILE, eval_entries(record)
    if not entries:
        path.unlink(missing_ok=True)
        return None
    path.parent.mkdir(exist_ok=True)
    text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
    write_text(path, text)
    return path
