"""Classifiers: forget samples beside samples of the same classes that no model was trained on."""

import pytest
import torch
from conftest import tiny_vit
from torch.nn.functional import cross_entropy

from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.evaluation.classification import Predictions, held_out_figures
from hf_unlearn.evaluation.classifier_rows import classifier_figures, classifier_table, evaluation_sets, unjudged
from hf_unlearn.evaluation.metric import Metric, is_share, role_of


def predicted(labels: list[int], correct: list[bool], scale: float = 3.0) -> Predictions:
    """Logits of three classes, `scale` for the label where it is correct and for the next class elsewhere."""
    label, right = torch.tensor(labels), torch.tensor(correct)
    shown = torch.where(right, label, (label + 1) % 3)
    return Predictions(scale * torch.eye(3)[shown], label)


def images(labels: list[int], seed: int = 0) -> ArrayDataset:
    pixels = torch.rand(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return ArrayDataset(pixels, torch.tensor(labels))


def test_classes_count_as_often_as_among_the_forget_samples():
    """Three forget samples of class 0 and one of 1: of class 0 half of the test samples are right, of 1 all."""
    forget = predicted([0, 0, 0, 1], [True] * 4)
    test = predicted([0, 0, 1, 1, 1, 1, 2, 2], [True, False, *[True] * 4, False, False])
    found = held_out_figures(forget, test)
    assert found["holdout_accuracy"].value == pytest.approx(0.75 * 0.5 + 0.25)
    right, wrong = (cross_entropy(p.logits, p.labels).item() for p in (forget, predicted([0], [False])))
    assert found["forget_loss"].value == pytest.approx(right) and found["forget_loss"].samples == 4
    assert found["holdout_loss"].value == pytest.approx(0.75 * (right + wrong) / 2 + 0.25 * right)
    # Two samples of weight 3/8 and four of 1/16.
    assert found["holdout_accuracy"].samples == round(1 / (2 * (3 / 8) ** 2 + 4 / 16**2)) == 3
    assert role_of("holdout_accuracy")[0] == "other" and is_share("holdout_accuracy")


def test_a_model_that_never_saw_the_samples_knows_both_alike_and_one_that_learnt_them_does_not():
    labels = [i % 3 for i in range(60)]
    unseen = [i % 5 > 0 for i in range(60)]
    retrained = held_out_figures(predicted(labels, unseen), predicted(labels, unseen))
    assert retrained["holdout_accuracy"].value == pytest.approx(0.8) and retrained["holdout_accuracy"].samples == 60
    assert retrained["forget_loss"].value == pytest.approx(retrained["holdout_loss"].value)
    learnt = held_out_figures(predicted(labels, [True] * 60, 9), predicted(labels, unseen, 9))
    assert learnt["forget_loss"].value < 0.01 < 1 < learnt["holdout_loss"].value


def test_a_class_without_held_out_samples_is_not_judged_by_others():
    assert list(held_out_figures(predicted([0, 2], [True] * 2), predicted([0, 1], [True] * 2))) == ["forget_loss"]


def test_a_random_part_has_them_a_class_has_its_own_held_out_accuracy_and_the_rest_is_as_before():
    model, forget, retain = tiny_vit(), images([0, 1, 2, 3]), images([0, 1, 2, 3] * 5, 1)
    test = images([0, 1, 2, 3] * 4, 2)
    random = classifier_figures(model, evaluation_sets(forget, retain, test, False), tiny_vit(1))
    assert {"forget_loss", "holdout_loss", "holdout_accuracy", "average_gap"} <= random.keys()
    assert random["holdout_accuracy"].value == pytest.approx(random["test_accuracy"].value)
    assert "forget_loss" not in random["average_gap"].definition
    by_class = classifier_figures(model, evaluation_sets(images([3] * 4), images([0, 1, 2] * 4), test, True))
    assert "forgotten_class_test_accuracy" in by_class and by_class.keys().isdisjoint(
        {"holdout_loss", "holdout_accuracy"}
    )


def test_one_line_says_what_cannot_be_judged():
    forget, retain = images([0, 1]), images([0, 1, 2])
    assert "never seen need images never trained on: pass --validation_data_dir" in unjudged(
        evaluation_sets(forget, retain, None, False), False
    )
    other = evaluation_sets(forget, retain, images([0, 2]), False)
    assert unjudged(other, False).startswith("the held-out images show no class 1, which forget images have: ")
    assert unjudged(evaluation_sets(images([1]), retain, images([0, 2]), True), True).startswith(
        "the held-out images show no forgotten class: "
    )
    assert unjudged(evaluation_sets(forget, retain, images([0, 1, 2]), False), False) == ""


def test_the_table_shows_how_wide_a_share_of_few_samples_is():
    table = classifier_table(
        {"unlearned": {"forget_accuracy": Metric(1.0, "", 9), "forget_loss": Metric(0.25, "", 9)}}
    )
    assert table.splitlines()[2].split("|")[2:4] == [" 100.0% [70.1, 100.0] ", " 0.250       "]
