"""docs/report_schema.md is what the command prints, and names every field that a run's file has."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import config

from hf_unlearn import UnlearnTrainer, split_by_label
from hf_unlearn.evaluation.metric import Metric
from hf_unlearn.report.record import SCHEMA_VERSION
from hf_unlearn.report.recording import record_run

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "report_schema.md").read_text()
DOCUMENTED = re.findall(r"^\| `([^`]+)` \|", TEXT, re.M)


def test_the_page_is_what_the_command_prints():
    command = [sys.executable, str(ROOT / "tools" / "report_schema.py")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == TEXT
    assert TEXT.startswith(f"# unlearning_report.json, schema {SCHEMA_VERSION}\n")
    assert len(DOCUMENTED) == len(set(DOCUMENTED)) > 60


def field_names(record: dict[str, Any]) -> set[str]:
    """Names of all fields of a file, in the notation of the page, read off the file alone."""
    found = set()
    for name, value in record.items():
        found.add(name)
        if name == "data":
            found |= {f"data.<part>.{inner}" for part in value.values() for inner in part}
        elif name == "figures":
            metrics = [metric for row in value.values() for metric in row.values()]
            found |= {f"figures.<model>.<metric>.{inner}" for metric in metrics for inner in metric}
        elif isinstance(value, dict):
            found |= {f"{name}.{inner}" for inner in value}
        elif name in ("per_class", "history"):
            found |= {f"{name}[].{inner}" for row in value for inner in row}
    return found


def test_the_fields_of_a_run_are_documented(tmp_path, pipeline, images):
    forget, retain = split_by_label(images, 1)
    args = config(tmp_path, max_steps=1, logging_steps=1, logging_strategy="steps")
    trainer = UnlearnTrainer(pipeline, args, forget_dataset=forget, retain_dataset=retain)
    trainer.train()
    rows = [{"name": "1", "forget": True, "before": 1.0, "after": 0.0}]
    record = record_run(trainer, "class 1", {"after": {"forget_accuracy": Metric(0.1, "s", 10)}}, per_class=rows)
    written = json.loads(record.write(tmp_path).read_text())
    documented = {name for name in DOCUMENTED if not name.startswith("adapter.")}
    assert field_names(written) == documented
    assert {"step", "loss"} <= set(written["log"][0]) and len(written["mask"]["layers"][0]) == 3
