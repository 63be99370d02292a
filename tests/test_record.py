"""The record of a run: what it holds is what the run did, and it reads back."""

import json
from dataclasses import replace

import pytest
from conftest import config

from hf_unlearn import UnlearnTrainer, split_by_label
from hf_unlearn.evaluation.metric import Metric, is_share, role_of
from hf_unlearn.methods import SFRon
from hf_unlearn.report.reading import read_record
from hf_unlearn.report.record import RECORD_FILE, DataRecord
from hf_unlearn.report.recording import record_run


@pytest.fixture
def trainer(tmp_path, pipeline, images):
    args = config(tmp_path / "run", max_steps=2, logging_steps=1, logging_strategy="steps")
    forget, retain = split_by_label(images, 1)
    trainer = UnlearnTrainer(pipeline, args, SFRon(), forget_dataset=forget, retain_dataset=retain)
    trainer.train()
    return trainer


def test_a_record_reads_back(trainer, tmp_path):
    figures = {
        "before": {"forget_accuracy": Metric(0.9, "share", 10)},
        "after": {"forget_accuracy": Metric(0.1, "s", 10)},
    }
    record = record_run(trainer, "class 1", figures, base_model=str(tmp_path), sources={"forget": str(tmp_path)})
    record.write(tmp_path)
    assert read_record(tmp_path) == replace(record, log=[dict(row) for row in record.log])
    assert record.value("after", "forget_accuracy") == 0.1
    assert record.value("retrained", "forget_accuracy") is None
    assert [row["step"] for row in record.log] == [1, 2]
    assert record.training.outer_steps == 2
    assert 0 < record.mask.density < 1 and len(record.mask.layers) == len(trainer.masks.tensors)
    assert record.data["forget"].samples == len(trainer.forget_dataset)
    text = (tmp_path / RECORD_FILE).read_text()
    assert str(tmp_path) not in text  # folder names only
    base = {"name": tmp_path.name, "revision": None, "on_hub": False, "licence": {}}
    assert json.loads(text)["base_model"] == base
    assert record.history[0].forgotten == "5 samples" and record.loads_with == ["ClassConditionalDDPMPipeline"]


def test_metrics_that_come_later_and_sources_of_other_data(trainer, pipeline):
    pipeline.register_to_config(_name_or_path="someone/ddpm")
    record = record_run(trainer, "class 1", {}, sources={"test": "someone/data"})
    assert record.data["test"] == DataRecord(None, None, "someone/data")
    assert record.data["forget"].source is None and record.base_model.name == "someone/ddpm"
    later = record.measured({"after": {"forget_loss": Metric(0.5, "loss", 5)}})
    assert later.value("after", "forget_loss") == 0.5 and record.figures == {}
    assert replace(later, figures={}) == record


def test_a_value_that_is_not_finite_is_null(trainer, tmp_path):
    record = record_run(trainer, "class 1", {"after": {"frechet_distance": Metric(float("nan"), "d", 1)}})
    record.write(tmp_path)
    assert read_record(tmp_path).value("after", "frechet_distance") is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "holds no"),
        ("{", "not a record"),
        ("[]", "not a record"),
        ('{"schema_version": 99}', "schema 99"),
        ('{"schema_version": 1}', "not a record"),
        ('{"schema_version": "1"}', "schema 1"),
        ('{"schema_version": 1, "figures": []}', "figures is a list"),
        ('{"schema_version": 1, "picture": 3}', "picture is a int"),
    ],
)
def test_bad_records(tmp_path, content, problem):
    if content is not None:
        (tmp_path / RECORD_FILE).write_text(content)
    with pytest.raises(ValueError, match=problem):
        read_record(tmp_path)


def test_roles():
    assert role_of("forget_accuracy") == ("forget", True)
    assert role_of("mia_confidence") == ("privacy", None)
    assert role_of("something") == ("other", None)
    assert is_share("retain_accuracy") and not is_share("forget_loss")
