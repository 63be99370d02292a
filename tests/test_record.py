"""The record of a run: what it holds is what the run did, and it reads back."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from conftest import config, tiny_pipeline, tiny_sd, tiny_vit
from families import family_case, sd_case
from records import run_record

from hf_unlearn import Classification, NoisePrediction, UnlearnTrainer, add_lora, split_by_label
from hf_unlearn.evaluation import SamplingConfig, digits_judge, evaluate_classes
from hf_unlearn.evaluation.metric import Metric, Role, is_share, role_of
from hf_unlearn.methods import METHODS, SFRon
from hf_unlearn.report.cards import model_card
from hf_unlearn.report.made import how_it_was_made
from hf_unlearn.report.page import page
from hf_unlearn.report.reading import read_record, typed
from hf_unlearn.report.record import RECORD_FILE, SCHEMA_VERSION, DataRecord, MaskRow, RunRecord
from hf_unlearn.report.recording import record_run
from hf_unlearn.saliency.ranks import choose_lora


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
    base = {"name": tmp_path.name, "revision": None, "on_hub": False, "licence": {}, "weights": None}
    assert json.loads(text)["base_model"] == base
    assert record.history[0].forgotten == "5 samples" and record.loads_with == ["ClassConditionalDDPMPipeline"]


def test_metrics_that_come_later_and_sources_of_other_data(trainer, pipeline):
    pipeline.register_to_config(_name_or_path="someone/ddpm")
    record = record_run(trainer, "class 1", {}, sources={"test": "someone/data"})
    assert record.data["test"] == DataRecord(None, None, "someone/data")
    assert record.data["forget"].source is None and record.base_model.name == "someone/ddpm"
    later = record.measured({"after": {"forget_loss": Metric(0.5, "loss", 5)}})
    assert later.value("after", "forget_loss") == 0.5 and record.figures == {}
    assert later.outcome is None and replace(later, figures={}, outcome=record.outcome) == record


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


# ---- the reader ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("hint", "value", "problem"),
    [
        (float, "3", "x is a str"),
        (float, True, "x is a bool"),
        (float, float("nan"), "x is nan, which is no finite number"),
        (float, 10**400, "which is no finite number"),
        (int, 3.0, "x is a float"),
        (int, None, "x is a NoneType"),
        (bool, 1, "x is a int"),
        (list[int], [1, "2"], r"x\[1\] is a str"),
        (list[str], "ab", "x is a str"),
        (dict[str, int], {"a": {}}, r"x\.a is a dict"),
        (dict[str, int], {3: 3}, "x has the key 3, which is a int"),
        (list[MaskRow], [["a", 1]], r"x\[0\] is no row of 3"),
        (list[MaskRow], [["a", 1, None]], r"x\[0\]\[2\] is a NoneType"),
        (dict[str, dict[str, Metric]], {"before": {"f": {"value": "low"}}}, r"x\.before\.f\.value is a str"),
        (dict[str, Metric], {"f": {"value": 1}}, r"x\.f\.definition is missing"),
    ],
)
def test_the_place_of_a_wrong_value_is_named(hint, value, problem):
    with pytest.raises(ValueError, match=f"{problem}$") as error:
        typed(hint, value, "x")
    assert str(error.value).startswith("x") and len(str(error.value).splitlines()) == 1


def test_values_are_read_by_their_types():
    assert typed(float | None, None, "x") is None and typed(float, 3, "x") == 3
    assert typed(list[MaskRow], [["a", 1, 0.5]], "x") == [MaskRow("a", 1, 0.5)]
    metric = typed(Metric, {"value": 1, "definition": "d", "samples": 3, "role": ["forget", None], "new": 5}, "x")
    assert metric == Metric(1, "d", 3, role=Role("forget", None))


# ---- files of the first schema -----------------------------------------------------------------
OLD = json.loads((Path(__file__).parent / "golden" / "records.json").read_text())
PASSING = ("cost", "created", "environment", "schema_version")


def made_now(name: str, folder) -> RunRecord:
    """The record of the run that tests/golden/records.json holds under `name`."""
    family, method = name.removesuffix("+lora").split("/")
    objective, forget, retain = family_case(family)
    if name.endswith("+lora"):
        add_lora(objective, choose_lora(objective, forget, retain, rank=2))
    args = config(folder, max_steps=3, per_device_eval_batch_size=64, logging_steps=1, logging_strategy="steps")
    trainer = UnlearnTrainer(objective, args, METHODS[method](), forget, retain, forgotten="class 1")
    trainer.train()
    text, library = "share of samples that the judge reads as asked", "torch 2.13"
    values = {"before": (1.0, 0.99), "after": (0.01, 0.98)}
    figures = {
        model: {
            "forget_accuracy": Metric(forgotten, text, 100, library),
            "retain_accuracy": Metric(kept, text, 900, library),
        }
        for model, (forgotten, kept) in values.items()
    }
    rows = [{"name": "1", "forget": True, "before": 1.0, "after": 0.01}]
    sources = {"forget": "photos", "retain": "photos"}
    return record_run(trainer, "class 1", figures, "some/model", "main", sources, rows)


def differences(old, new, where="") -> list[str]:
    """Places where `new` lacks or changes what `old` has."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [line for key in old for line in differences(old[key], new.get(key, "missing"), f"{where}.{key}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i, pair in enumerate(zip(old, new)) for line in differences(*pair, f"{where}[{i}]")]
    if isinstance(old, float) and isinstance(new, float):
        return [] if new == pytest.approx(old, rel=1e-4, abs=1e-6) else [f"{where}: {old} {new}"]
    return [] if old == new else [f"{where}: {old} {new}"]


@pytest.mark.parametrize("name", OLD)
def test_a_record_of_the_first_schema_is_read_and_one_made_now_has_its_values(name, tmp_path):
    (tmp_path / RECORD_FILE).write_text(json.dumps(OLD[name]["record"]))
    read = read_record(tmp_path)
    assert read.schema_version == SCHEMA_VERSION and (read.adapter is not None) == name.endswith("+lora")
    assert (read.weights, read.objective) == (None, None)
    assert "# x" in model_card(read, "x") and "How it was made" in page(read, tmp_path)
    old = {key: value for key, value in OLD[name]["record"].items() if key not in PASSING and value != {}}
    for entry in old["history"]:
        del entry["date"], entry["hf_unlearn"]
    new = made_now(name, tmp_path / "run")
    assert differences(old, json.loads(json.dumps(asdict(new)))) == []
    assert new.weights is not None and new.objective is not None


# ---- what a run could not be told by before ------------------------------------------------------
def recorded(objective, forget, retain, folder, method=None) -> RunRecord:
    args = config(folder, max_steps=1)
    trainer = UnlearnTrainer(objective, args, method or SFRon(), forget, retain)
    trainer.train()
    return record_run(trainer, "x", {})


@pytest.mark.parametrize(("train_method", "kind"), [("full", "all"), ("xattn", "part"), ("text_encoder", "all")])
def test_trained_weights_prompts_and_anchors_of_text_to_image(train_method, kind, tmp_path):
    objective, data = sd_case(tiny_sd, train_method)
    forget, retain = split_by_label(data, 1)
    record = recorded(objective, forget, retain, tmp_path)
    said = record.objective
    assert (said.train_method, said.label_dropout, said.null_class, said.antithetic) == (train_method, 0.1, 0, True)
    assert said.anchors == [("a cat", "a dog")] and said.anchor_rule
    trained = {n for n, p in objective.network.named_parameters() if p.requires_grad}
    sizes = {n: p.numel() for n, p in objective.network.named_parameters()}
    share = sum(sizes[n] for n in trained) / sum(sizes.values())
    assert (record.weights.trained, record.weights.total) == (kind, sum(sizes.values()))
    assert record.weights.trained_share == pytest.approx(share) and (share < 1) == (kind == "part")
    assert record.weights.network == type(objective.network).__name__
    text = model_card(record, "x")
    assert f"(`train_method` {train_method})" in text and "| `a cat` | `a dog` |" in text
    html = page(record, tmp_path)
    assert f"(<code>train_method</code> {train_method})" in html and "a cat" in html


def test_anchors_of_classes(tmp_path, images):
    forget, retain = split_by_label(images, 1)
    objective = NoisePrediction(tiny_pipeline(), label_dropout=0.25, antithetic=False)
    said = recorded(objective, forget, retain, tmp_path / "a").objective
    assert (said.label_dropout, said.antithetic, said.anchors) == (0.25, False, [("1", "2")])
    said = recorded(Classification(tiny_vit()), forget, retain, tmp_path / "b").objective
    assert said.anchors == [] and said.anchor_rule.endswith("for each forget sample, never 1")
    assert said.label_dropout is None and said.antithetic is None


def test_how_many_weights_moved(tmp_path, images):
    forget, retain = split_by_label(images, 1)
    objective = NoisePrediction(tiny_pipeline())
    before = {n: p.detach().clone() for n, p in objective.network.named_parameters()}
    record = recorded(objective, forget, retain, tmp_path / "a")
    after = dict(objective.network.named_parameters())
    moved = sum(int((after[n] != before[n]).sum()) for n in before) / sum(p.numel() for p in before.values())
    assert record.weights.moved_share == pytest.approx(moved) and 0 < moved <= 1
    method = METHODS["gradient_ascent"]()
    unknown = recorded(NoisePrediction(tiny_pipeline()), forget, retain, tmp_path / "b", method)
    assert unknown.weights.moved_share is None  # the method keeps no original to compare with


def test_an_adapter_s_share_is_of_the_network_without_it(tmp_path, images):
    forget, retain = split_by_label(images, 1)
    objective = NoisePrediction(tiny_pipeline())
    total = sum(p.numel() for p in objective.network.parameters())
    add_lora(objective, choose_lora(objective, forget, retain, rank=2))
    weights = recorded(objective, forget, retain, tmp_path).weights
    added = sum(p.numel() for p in objective.network.parameters() if p.requires_grad)
    assert (weights.trained, weights.total, weights.trained_share) == ("adapter", total, pytest.approx(added / total))


def test_the_sampler_of_the_metrics(tmp_path):
    record = run_record()
    said = "Samples for the metrics were generated with DDIMScheduler, 10 inference steps, guidance scale 1.5, seed 0"
    assert said in how_it_was_made(record)[-1] and said in page(record, tmp_path)
    bad = {"value": 1.0, "definition": "d", "samples": 3, "details": {"num_inference_steps": "ten"}}
    with pytest.raises(ValueError, match=r"figures\.after\.fid\.details\.num_inference_steps is a str"):
        how_it_was_made(run_record(figures={"after": {"fid": bad}}))


def test_class_samples_name_their_scheduler():
    judge = digits_judge()
    pipeline = tiny_pipeline()
    real = torch.rand(40, 1, 8, 8) * 2 - 1
    config = SamplingConfig(samples_per_class=4, guidance_scale=1.0, num_inference_steps=1, batch_size=4)
    found = evaluate_classes(pipeline, judge, [1], real, torch.arange(40) % 4, config)
    assert found.metrics()["forget_accuracy"].details["scheduler"] == type(pipeline.scheduler).__name__


def test_roles():
    assert role_of("forget_accuracy") == ("forget", True)
    assert role_of("mia_confidence") == ("privacy", None)
    assert role_of("something") == ("other", None)
    assert is_share("retain_accuracy") and not is_share("forget_loss")
