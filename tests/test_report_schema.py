"""docs/report_schema.md names the fields that a record has, and no others."""

import re
from dataclasses import asdict, fields
from pathlib import Path

from conftest import config

from hf_unlearn import UnlearnTrainer, split_by_label
from hf_unlearn.evaluation.metric import Metric
from hf_unlearn.report.record import SCHEMA_VERSION, RunRecord, record_run

TEXT = (Path(__file__).parents[1] / "docs" / "report_schema.md").read_text()
DOCUMENTED = re.findall(r"^\| `([\w.<>]+)` \|", TEXT, re.M)


def documented(prefix: str) -> set[str]:
    return {name.removeprefix(prefix) for name in DOCUMENTED if name.startswith(prefix)}


def test_every_field_is_documented_once():
    assert len(DOCUMENTED) == len(set(DOCUMENTED))
    assert {name.split(".")[0] for name in DOCUMENTED} == {f.name for f in fields(RunRecord)}
    assert TEXT.startswith(f"# unlearning_report.json, schema {SCHEMA_VERSION}\n")


def test_the_parts_of_a_field_are_those_of_a_run(tmp_path, pipeline, images):
    forget, retain = split_by_label(images, 1)
    args = config(tmp_path, max_steps=1, logging_steps=1, logging_strategy="steps")
    trainer = UnlearnTrainer(pipeline, args, forget_dataset=forget, retain_dataset=retain)
    trainer.train()
    record = asdict(record_run(trainer, "class 1", {"after": {"forget_accuracy": Metric(0.1, "s", 10)}}))
    for name in ("base_model", "method", "training", "mask", "cost", "environment"):
        assert documented(f"{name}.") == set(record[name]), name
    assert documented("data.<part>.") == set(record["data"]["forget"]) == set(record["data"]["retain"])
    assert documented("figures.<model>.<figure>.") == set(record["figures"]["after"]["forget_accuracy"])
    assert {"step", "loss"} <= set(record["log"][0])
    assert len(record["mask"]["layers"][0]) == 3
