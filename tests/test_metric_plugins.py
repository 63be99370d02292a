"""Metrics of other packages: entry points are called with a finished model, and their values reach card and check."""

import sys

import pytest
import torch
from conftest import random_images, tiny_pipeline, tiny_vit
from records import run_record

from hf_unlearn import Classification, NoisePrediction, split_by_label
from hf_unlearn.cli.commands.check import CRITERIA
from hf_unlearn.evaluation.metric import Metric, Role
from hf_unlearn.evaluation.registry import extra_metrics, joined, registered_metrics
from hf_unlearn.report.card_text import card_table, failures
from hf_unlearn.report.page import page
from hf_unlearn.report.reading import read_record
from hf_unlearn.report.verdict import verdict

PLUGIN = """
import torch
from hf_unlearn.evaluation.metric import Metric, Role
from hf_unlearn.evaluation.registry import RegisteredMetric

calls = []

def noticed(*, model, kinds, forget, retain, seed):
    if "classifier" not in kinds:
        return None
    calls.append((type(model).__name__, model.training, len(forget), len(retain), seed, torch.rand(1).item()))
    return Metric(0.25, "share of forget samples that the attack notices", len(forget), "attack 1.0")

def steps(*, model, kinds, forget, retain, seed):
    return Metric(3.0, "steps of the scheduler", 1) if "diffusion" in kinds else None

def wrong(*, model, kinds, forget, retain, seed):
    return 0.5

noticed_by_attack = RegisteredMetric(noticed, Role("forget", True))
number = 3
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """`installed({name: target})`: a package with these entry points, as pip leaves it."""

    def install(entries: dict[str, str], package: str = "attack") -> None:
        (tmp_path / f"{package}_metrics.py").write_text(PLUGIN)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {package}_metrics:{target}" for name, target in entries.items()]
        (info / "entry_points.txt").write_text("[hf_unlearn.metrics]\n" + "\n".join(lines) + "\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    sys.modules.pop("attack_metrics", None)


def test_without_packages_there_are_none():
    assert registered_metrics() == {}
    forget, retain = split_by_label(random_images(), 1)
    assert extra_metrics(Classification(tiny_vit()), forget, retain, 0) == {}


def test_a_metric_measures_the_models_that_it_applies_to(installed):
    installed({"noticed_share": "noticed_by_attack", "steps": "steps"})
    forget, retain = split_by_label(random_images(), 1)
    classifier, diffusion = Classification(tiny_vit()), NoisePrediction(tiny_pipeline())
    classifier.train()
    state = torch.get_rng_state()
    found = extra_metrics(classifier, forget, retain, 7)
    assert list(found) == ["noticed_share"] and found["noticed_share"].role == Role("forget", True)
    assert torch.equal(state, torch.get_rng_state()) and classifier.network.training
    torch.manual_seed(7)
    ((kind, training, *counts, drawn),) = sys.modules["attack_metrics"].calls
    assert (kind, training, counts) == ("ViTForImageClassification", False, [len(forget), len(retain), 7])
    assert drawn == torch.rand(1).item()
    assert list(extra_metrics(diffusion, forget, retain, 7)) == ["steps"]


def test_its_role_and_value_reach_the_record_the_card_the_page_and_check(tmp_path):
    role = Role("forget", True)
    figures = {
        "before": {"noticed_share": Metric(0.9, "share noticed", 100, role=role)},
        "after": {"noticed_share": Metric(0.25, "share noticed", 100, role=role)},
        "retrained": {"noticed_share": Metric(0.1, "share noticed", 100, role=role)},
    }
    run_record().measured(figures).write(tmp_path)
    record = read_record(tmp_path)
    assert record.figures == figures and record.role("noticed_share") == role
    assert verdict(record).startswith("After unlearning class 3, noticed share fell from 90.0% to 25.0%")
    assert "| noticed share | 90.0% [" in card_table(record)
    assert failures(record)[1] == "Noticed share is 25.0%, above a retrained model's 10.0%."
    assert "lower forgets more" in page(record, tmp_path)
    (most,) = (criterion for criterion in CRITERIA if criterion.name == "max-forget")
    assert [most.judge(record, limit).passed for limit in (0.25, 0.24)] == [True, False]


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"a": "gone"}, "the metric a .attack_metrics:gone. does not load"),
        ({"a": "number"}, "is a int, not a function"),
        ({"a": "wrong"}, "the metric a returned a float, not a Metric or None"),
    ],
)
def test_entry_points_that_are_none(installed, entries, problem):
    installed(entries)
    forget, retain = split_by_label(random_images(), 1)
    with pytest.raises(ValueError, match=problem):
        extra_metrics(Classification(tiny_vit()), forget, retain, 0)


def test_names_are_taken_once(installed):
    installed({"a": "steps"})
    installed({"a": "steps"}, "other")
    with pytest.raises(ValueError, match="two packages register the metric a"):
        registered_metrics()
    metric = Metric(1.0, "d", 1)
    assert list(joined({"b": metric}, {"a": metric})) == ["b", "a"]
    with pytest.raises(ValueError, match="registers the metric a, which hf-unlearn measures itself"):
        joined({"a": metric}, {"a": metric})


def test_a_role_is_about_a_known_part():
    from hf_unlearn.evaluation.registry import RegisteredMetric

    with pytest.raises(ValueError, match="must be one of forget, retain, privacy, other, got 'forgotten'"):
        RegisteredMetric(lambda **given: None, Role("forgotten", True))
