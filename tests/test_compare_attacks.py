"""Attacks in a comparison: RMIA in every cell, and the likelihood ratio on the samples that training shows most."""

from dataclasses import replace

import pytest
import torch

from hf_unlearn.compare import Cells, Recipe, load_recipe
from hf_unlearn.compare import ulira as attack
from hf_unlearn.compare.models import forget_and_retain, splits_of
from hf_unlearn.compare.pool import InProcess
from hf_unlearn.compare.rows import AGAIN
from hf_unlearn.evaluation.classification import predictions
from hf_unlearn.evaluation.rmia import of_classes, rmia
from hf_unlearn.evaluation.vulnerable import most_vulnerable, vulnerable_ratio

CLASS = Recipe(
    name="tiny",
    data="digits",
    model="digits_resnet",
    forget={"classes": [3]},
    methods=["finetune"],
    seeds=[0, 1],
    budget=2,
    train={"max_steps": 20},
    trials=1,
    search_seeds=[1000],
    max_retain_samples=100,
    references=2,
)
pytestmark = pytest.mark.xdist_group("compare")


def test_rmia_is_that_of_reference_models_against_test_samples_of_the_class(tmp_path):
    """The test set of the other columns lacks the forgotten class; RMIA compares with that class alone."""
    cells = Cells(CLASS, tmp_path)
    result = cells.result("retrained", 1, "test")
    forget, _ = forget_and_retain(CLASS, 1)
    test = splits_of(CLASS)[0]["test"]

    def outputs(kind: str, seed: int, forget_seed: int):
        model, _ = cells.trained(kind, seed, forget_seed)
        return predictions(model, forget), of_classes(predictions(model, test), [3])

    expected = rmia(*outputs("retrained", 1, 1), [outputs("retrained", 5000 + k, 0) for k in range(2)])
    assert result["metrics"]["rmia_auc"] == {**expected.as_dict(), "role": None}
    assert expected.details["holdout_samples"] == sum(label == 3 for label in test.labels) < 40
    assert "rmia_auc" in cells.result(AGAIN, 1, "test")["metrics"]
    assert "rmia_auc" not in cells.result("retrained", 1, "validation")["metrics"]
    assert "rmia_auc" not in Cells(replace(CLASS, references=0), tmp_path).result("retrained", 1, "test")["metrics"]


def test_a_drawn_forget_set_has_references_of_its_own(tmp_path):
    cells = Cells(replace(CLASS, forget={"fraction": 0.1}), tmp_path)
    assert cells.reference_models == [("retrained", 5000 + k, s) for s in (0, 1) for k in range(2)]
    assert Cells(CLASS, tmp_path).reference_models == [("retrained", 5000 + k, 0) for k in range(2)] * 2
    fixed = Cells(replace(CLASS, forget={"fraction": 0.1, "seed": 7}), tmp_path)
    assert {forget for _, _, forget in fixed.reference_models} == {0}


@pytest.fixture
def shadows(monkeypatch):
    """Scores of 40 samples; training moves the first five, and `finetune` undoes a half of that."""
    moved = torch.zeros(40)
    moved[:5] = 4.0
    share = {"original": 1.0, "retrained": 0.0, "finetune": 0.5}

    def scores(cells, row, shadow, options):
        generator = torch.Generator().manual_seed(1000 * list(share).index(row) + shadow)
        return (share[row] * moved + torch.randn(40, generator=generator)).tolist()

    monkeypatch.setattr(attack, "shadow_scores", scores)
    return {row: torch.tensor([scores(None, row, k, {}) for k in range(32)]) for row in share}


def test_sixteen_shadows_say_it_of_the_vulnerable_samples_too(shadows, tmp_path):
    cells = Cells(replace(CLASS, shadows=16), tmp_path)
    text = attack.attack_table(InProcess(), cells, {r: {} for r in ("original", "retrained", "finetune")}, False)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    lines = {row[0]: row[1:] for row in rows}
    chosen = most_vulnerable(shadows["original"][:16], shadows["retrained"])
    assert set(range(5)) <= set(chosen.tolist()) and "of the 10 of 40 samples" in text
    expected = vulnerable_ratio(shadows["finetune"][:16], shadows["retrained"][:16], chosen)
    low, high = expected.details["interval"]
    assert lines["finetune"][-1] == f"{expected.number:.3f} [{low:.3f}, {high:.3f}]"
    auc = {
        row: [float(cell.split()[0]) for cell in (cells[1], cells[3])]
        for row, cells in lines.items()
        if row != "method"
    }
    assert auc["original"][1] > auc["original"][0] + 0.1 and auc["finetune"][1] > auc["finetune"][0] + 0.1
    assert auc["retrained"] == pytest.approx([0.5, 0.5], abs=0.08)


def test_fewer_shadows_do_not(shadows, tmp_path):
    cells = Cells(replace(CLASS, shadows=4), tmp_path)
    text = attack.attack_table(InProcess(), cells, {r: {} for r in ("original", "retrained", "finetune")}, False)
    assert "vulnerable" not in text and "4 shadow models a side" in text


def test_digits_recipes_have_sixteen_shadows_and_four_references():
    for model in ("resnet", "vit"):
        for what in ("class3", "random10", "class3_47th", "random10_100th"):
            recipe = load_recipe(f"digits_{model}_{what}")
            assert (recipe.shadows, recipe.references) == (16, 4)


def test_references_are_refused_where_they_make_no_sense(tmp_path):
    with pytest.raises(ValueError, match="references is a number of models, got -1"):
        replace(CLASS, references=-1)
    given = dict(original=str(tmp_path / "a"), retrained=str(tmp_path / "b"))
    assert load_recipe("digits_resnet_class3", **given).references == 0
    with pytest.raises(ValueError, match="set references to 0 with an original"):
        load_recipe("digits_resnet_class3", **given, references=4)
