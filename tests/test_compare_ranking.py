"""Who wins a comparison: the nearest to retraining of those that keep what is retained. Budgets, and intervals."""

import json
from dataclasses import replace

import pytest
from test_compare import TINY, measured

from hf_unlearn.compare import Cells, load_recipe
from hf_unlearn.compare.budget import over_budget
from hf_unlearn.compare.ranking import best_of, excess, ordered, points_lost, verdict
from hf_unlearn.compare.rows import AGAIN
from hf_unlearn.compare.search import search
from hf_unlearn.compare.tables import table, write
from hf_unlearn.evaluation.metric import share_interval

RETRAINED = {"forget_accuracy": 0.8, "retain_accuracy": 0.99, "test_accuracy": 0.9, "mia_entropy_logistic": 0.5}
LIMIT = 1.5
pytestmark = pytest.mark.xdist_group("compare")


def cell(seed: int = 0, diverged: str | None = None, **changed: float) -> dict:
    """A cell that equals the retrained model but for the shares that are `changed`, by points."""
    timed = {"seed": seed, "seconds": 1.0, "time_ratio": 0.01, "diverged": diverged}
    if diverged:
        return timed
    values = {name: value + changed.get(name, 0.0) / 100 for name, value in RETRAINED.items()}
    metrics = {name: {"value": value, "samples": 50} for name, value in values.items()}
    gap = 100 * sum(abs(values[n] - RETRAINED[n]) for n in values) / 4
    for name in ("mia_confidence_svc", "kl_to_retrained", "js_to_retrained", "iam_score", "relearn_steps"):
        metrics[name] = {"value": 0.5, "samples": 50}
    details = {f"retrained_{name}": value for name, value in RETRAINED.items()}
    return {**timed, "metrics": {**metrics, "average_gap": {"value": gap, "details": details}}}


@pytest.fixture
def results():
    """`broken` is nearest to retraining but for the 4 points of test accuracy that it lost; `far` keeps everything."""
    return {
        "original": [cell(forget_accuracy=20, mia_entropy_logistic=40)] * 2,
        "retrained": [cell()] * 2,
        AGAIN: [cell(mia_entropy_logistic=2)] * 2,
        "destroyed": [cell(retain_accuracy=-30, test_accuracy=-25)] * 2,
        "far": [cell(forget_accuracy=-9, test_accuracy=3)] * 2,
        "broken": [cell(test_accuracy=-4)] * 2,
        "near": [cell(forget_accuracy=-5.5, test_accuracy=-1.5)] * 2,
    }


def test_a_row_that_breaks_what_is_retained_is_never_the_best(results):
    assert ordered(results, LIMIT) == ["original", "retrained", AGAIN, "near", "far", "broken", "destroyed"]
    assert best_of(results, LIMIT) == "near" and best_of(results, 1.4) == "far" and best_of(results, 4) == "broken"
    assert excess(results["broken"], LIMIT) == pytest.approx(2.5)
    assert excess(results["near"], LIMIT) == 0  # on the limit
    assert excess(results["far"], 0) == 0  # better than the retrained model is no loss
    assert excess(results["destroyed"], LIMIT) == pytest.approx(28.5)  # the worse of the two
    text = verdict(results, LIMIT)
    assert "The best within this limit is near (gap of means 1.75)" in text
    assert text.endswith("over it: broken (RA +0.0, TA -4.0), destroyed (RA -30.0, TA -25.0).")
    assert "no method is over it" in verdict(results, 30)
    only = {name: results[name] for name in ("retrained", "broken")}
    assert best_of(only, LIMIT) is None and verdict(only, LIMIT).endswith("so none is the best.")


def test_the_limit_holds_for_means_over_runs():
    cells = [cell(test_accuracy=-4), cell(test_accuracy=1)]
    assert points_lost(cells)["test_accuracy"] == pytest.approx(1.5) and excess(cells, LIMIT) == 0
    assert points_lost([cell(), cell(diverged="loss is not finite")])["retain_accuracy"] == pytest.approx(50)


def test_the_table_has_a_line_above_those_over_the_limit_and_the_accuracies_beside_the_gap(results):
    lines = table(results, LIMIT).splitlines()
    titles = [title.strip() for title in lines[0].split("|")[1:-1]]
    assert titles[:9] == ["method", "gap of means", "average gap", "RA %", "TA %", "KL", "IAM", "RMIA AUC", "FA %"]
    rows = [line.split("|")[1].strip() for line in lines[2:]]
    over = "*over the limit of 1.5 points:*"
    assert rows == ["original", "retrained", AGAIN, "near", "far", over, "broken", "destroyed"]
    assert len({line.count("|") for line in lines}) == 1
    assert over not in table(results, 30)


def test_shares_of_runs_that_do_not_differ_have_the_interval_of_their_samples(results):
    """Two runs at 99 % of 50 samples each are no certainty; the average gap is no share."""
    line = next(line for line in table(results, LIMIT).splitlines() if line.startswith("| far"))
    low, high = (100 * bound for bound in share_interval(0.99, 50))
    assert f"| 99.0 [{low:.1f}, {high:.1f}]" in line and "| 3.00 ± 0.00 " in line
    single = next(line for line in table({"far": results["far"][:1]}, LIMIT).splitlines() if "far" in line)
    assert f"| 99.0 [{low:.1f}, {high:.1f}]" in single and "| 3.00 " in single
    mixed = {"far": [cell(), cell(retain_accuracy=-1)]}
    assert "98.5 ± 6.4" in table(mixed, LIMIT)


def test_results_say_which_row_is_the_best(results, tmp_path):
    recipe = replace(TINY, train={"max_steps": 400, "per_device_train_batch_size": 64}, budget=4)
    text = write(tmp_path, recipe, "now", results, {})
    assert json.loads((tmp_path / "results.json").read_text())["best"] == "near"
    assert "The best within this limit is near" in text
    assert "budget 4 batch gradients of 64 samples (1/100 of retraining's 400)" in text
    assert "(1/" not in write(tmp_path, replace(recipe, train={"max_steps": 400}), "now", results, {})


# ---- the search ----------------------------------------------------------------------------------
def searched(tmp_path, monkeypatch, outcomes, **changed):
    """Search finetune where the trials have these (average gap, points lost)."""
    left = list(outcomes)
    monkeypatch.setattr(Cells, "result", lambda *args: measured(*left.pop(0)))
    return search(Cells(replace(TINY, trials=len(outcomes), **changed), tmp_path), "finetune")


def test_a_trial_over_the_limit_loses_to_any_that_keeps_it(tmp_path, monkeypatch):
    found = searched(tmp_path, monkeypatch, [(9.0, 0.0), (0.5, 1.6), (4.0, 1.5), (0.1, 60.0)])
    assert (found["gap"], found["excess"]) == (4.0, 0) and found["options"] == found["trials"][2]["options"]
    assert [trial["excess"] for trial in found["trials"]] == pytest.approx([0, 0.1, 0, 58.5])


def test_among_trials_over_the_limit_the_one_nearest_to_it_wins(tmp_path, monkeypatch):
    found = searched(tmp_path, monkeypatch, [(1.0, 20.0), (8.0, 3.0), (0.5, 5.0)])
    assert (found["gap"], found["excess"]) == (8.0, pytest.approx(1.5))


def test_the_limit_is_the_recipes(tmp_path, monkeypatch):
    found = searched(tmp_path, monkeypatch, [(9.0, 0.0), (0.5, 1.6)], accuracy_limit=2.0)
    assert found["gap"] == 0.5
    with pytest.raises(ValueError, match="accuracy_limit is in points and at least 0"):
        replace(TINY, accuracy_limit=-1.0)


def test_the_sampler_is_told_that_a_broken_trial_is_worse_than_any_gap(tmp_path, monkeypatch):
    """Else it would go on where the gap is small and the model broken."""
    import optuna

    told, whole = [], optuna.study.Study.tell
    monkeypatch.setattr(
        optuna.study.Study, "tell", lambda self, trial, value: told.append(value) or whole(self, trial, value)
    )
    searched(tmp_path, monkeypatch, [(9.0, 0.0), (0.5, 1.6), (99.0, 1.0)])
    assert told == pytest.approx([100.1, 99.0])


# ---- budgets -------------------------------------------------------------------------------------
def test_a_row_whose_one_step_is_more_than_the_budget_is_named():
    recipe = replace(TINY, budget=4, methods=["finetune", "salun", "sfron", "ssd"])
    options = {row: {} for row in recipe.methods}
    text = "\nOne outer step of these rows takes more batch gradients than the budget: "
    assert over_budget(recipe, options, (100, 900)) == f"{text}salun (10).\n"
    assert over_budget(replace(recipe, budget=2), options, (100, 900)) == f"{text}salun (10), sfron (3).\n"
    assert over_budget(replace(recipe, budget=10), options, (100, 900)) == ""


SETTINGS = ("digits_resnet_random10", "digits_resnet_class3", "digits_vit_random10", "digits_vit_class3")
SETTINGS += ("cifar10_resnet_random10_augmented", "cifar10_resnet_class3_augmented")


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_has_the_budgets_of_a_hundredth_and_of_the_papers(name):
    base = load_recipe(name)
    for end, part in (("100th", 100), ("47th", 47)):
        recipe = load_recipe(f"{name}_{end}")
        assert recipe.budget == int(recipe.retraining_gradients / part) >= 4
        same = replace(recipe, name=base.name, budget=base.budget, fisher_samples=base.fisher_samples)
        assert same == base
    assert base.augment == name.endswith("augmented")


def test_a_recipe_takes_what_it_does_not_say_from_the_one_that_it_is_like(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("like: digits_vit_class3\nname: own\nbudget: 9\n")
    assert load_recipe(str(own)) == replace(load_recipe("digits_vit_class3"), name="own", budget=9)
    own.write_text("like: digits_vit_class3\nname: own\n")
    with pytest.raises(ValueError, match="own.yaml is itself like another recipe, name that one"):
        (tmp_path / "other.yaml").write_text("like: own.yaml\nname: other\n")
        load_recipe(str(tmp_path / "other.yaml"))
    own.write_text("like: [digits]\nname: own\n")
    with pytest.raises(ValueError, match="like must be the name of a recipe"):
        load_recipe(str(own))
