"""Attacks on classifiers: they find what a model memorised, and nothing in one that never saw it."""

from dataclasses import replace

import pytest
import torch
from conftest import tiny_vit

from hf_unlearn.attacks import (
    ClassifierIAM,
    ClassifierRelearning,
    ClassifierResidual,
    ClassifierRMIA,
    Trial,
    classifier_target,
    classifier_trial,
    run_attacks,
    suite_of,
)
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.evaluation.classification import predictions
from hf_unlearn.evaluation.iam import fitting_score, membership_scores
from hf_unlearn.evaluation.relearn import relearn_steps
from hf_unlearn.evaluation.residual import pixel_range, residual_knowledge
from hf_unlearn.evaluation.rmia import rmia
from hf_unlearn.training.recipes import train_classifier


def noise(count: int, seed: int) -> ArrayDataset:
    """Random images with random labels, which can only be known by heart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    return ArrayDataset(torch.rand(count, 1, 8, 8, generator=generator) * 2 - 1, labels)


FORGET, RETAIN, UNSEEN = noise(12, 0), noise(24, 1), noise(100, 2)


def trained(seed: int, everything: bool):
    parts = [FORGET, RETAIN] if everything else [RETAIN]
    data = ArrayDataset(torch.cat([p.pixel_values for p in parts]), torch.cat([p.label_tensor for p in parts]))
    model = tiny_vit(seed)
    train_classifier(
        model, data, seed, max_steps=120, per_device_train_batch_size=36, warmup_steps=0, learning_rate=1e-2
    )
    return model.eval()


@pytest.fixture(scope="module")
def trial() -> Trial:
    """The "unlearned" model is one that was retrained: nothing is left in it."""
    original, unlearned, other, *references = [trained(0, True), *(trained(seed, False) for seed in range(1, 7))]
    parts = [(data.pixel_values, data.label_tensor) for data in (FORGET, UNSEEN)]
    return classifier_trial(unlearned, original, *parts, references, retrained=other)


def test_the_suite_finds_the_original_and_not_what_was_retrained(trial, tmp_path):
    before = {n: v.clone() for n, v in trial.ceiling.model.state_dict().items()}
    attacks = suite_of("classifier")
    found = run_attacks(attacks, trial, tmp_path, seeds=(0, 1))
    assert set(found) == {"recovered_iam", "recovered_rmia", "recovered_residual", "relearning_classifier"}
    for name in ("recovered_iam", "recovered_rmia", "recovered_residual"):
        metric = found[name]
        assert metric.details["ceiling"]["value"] > 0.5 > 0.4 > metric.value, name
        assert metric.details["negative"]["value"] < 0.4 and metric.samples == 12
    steps = found["relearning_classifier"]
    assert steps.details["ceiling"]["value"] == 0 < steps.details["negative"]["value"] and steps.value > 3
    after = trial.ceiling.model.state_dict()
    assert all(torch.equal(v, after[n]) for n, v in before.items())


def test_results_are_kept_and_another_reference_is_another_result(trial, tmp_path, monkeypatch):
    calls = []
    attack = ClassifierIAM.attack
    monkeypatch.setattr(ClassifierIAM, "attack", lambda self, s, seed: calls.append(seed) or attack(self, s, seed))
    first = run_attacks([ClassifierIAM()], trial, tmp_path)
    assert run_attacks([ClassifierIAM()], trial, tmp_path) == first and len(calls) == 6
    fewer = replace(trial.unlearned, references=trial.unlearned.references[:1])
    run_attacks([ClassifierIAM()], replace(trial, unlearned=fewer), tmp_path)
    assert len(calls) == 8


def test_iam_by_hand_with_another_shadow_for_each_seed(trial):
    own = trial.unlearned
    for seed in (0, 1, 5):
        models = (own.model, own.original, own.references[seed % 4])
        logits = [predictions(model, FORGET).logits for model in models]
        scores = membership_scores(*(fitting_score(part, FORGET.label_tensor) for part in logits))
        found = ClassifierIAM().attack(own, seed)
        assert found.recovered == tuple(s > 0.5 for s in scores.tolist())
        assert found.details["unlearning_score"] == pytest.approx(1 - scores.mean().item(), abs=1e-6)


def test_rmia_by_hand(trial):
    own, fpr = trial.ceiling, 0.2
    models = (own.model, *own.references[:3])

    def ratios(data):
        p = [predictions(m, data).logits.double().softmax(1)[range(len(data)), data.label_tensor] for m in models]
        return (p[0] / (sum(p[1:]) / 3)).tolist()

    x, z = ratios(FORGET), ratios(UNSEEN)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(4)).tolist()
    population, strangers = [z[i] for i in order[:50]], [z[i] for i in order[50:]]

    def score(value):
        return sum(value >= other for other in population) / 50

    threshold = sorted((score(value) for value in strangers), reverse=True)[10]
    found = ClassifierRMIA(references=3, fpr=fpr).attack(own, 4)
    assert found.recovered == tuple(score(value) > threshold for value in x)
    pairs = [(predictions(m, FORGET), predictions(m, UNSEEN)) for m in models]
    assert found.details["auc"] == pytest.approx(rmia(*pairs[0], pairs[1:]).number, abs=1e-9)


def test_residual_knowledge_and_relearning_are_those_of_the_measures(trial):
    own = trial.ceiling
    found = ClassifierResidual(tau=0.3, draws=20).attack(own, 1)
    metric = residual_knowledge(own.model, own.references[0], FORGET, 0.3, pixel_range(None), 20, seed=1)
    assert found.details["ratio"] == metric.value > 1
    assert found.share == pytest.approx(metric.details["more_often_share"])
    relearnt = ClassifierRelearning(learning_rate=1e-3, max_steps=9).attack(trial.negative, 1)
    assert (
        relearnt.steps
        == relearn_steps(trial.negative.model, FORGET, 1.0, learning_rate=1e-3, max_steps=9, seed=1).value
    )
    assert len(relearnt.recovered) == 12 and relearnt.reached == all(relearnt.recovered)


@pytest.mark.parametrize(
    ("attack", "change", "said"),
    [
        (ClassifierIAM(), lambda s: dict(references=()), "IAM needs 1 models"),
        (ClassifierIAM(), lambda s: dict(original=None), "IAM needs the original"),
        (
            ClassifierRMIA(references=5),
            lambda s: {},
            "RMIA needs 5 models trained without the target, and there are 4",
        ),
        (ClassifierRMIA(), lambda s: dict(unseen=None), "held-out samples of the same classes"),
        (ClassifierResidual(), lambda s: dict(model=s.references[2]), "is one of the references"),
        (ClassifierRelearning(), lambda s: dict(original=None), "relearning needs the original"),
        (ClassifierRelearning(), lambda s: dict(target=replace(s.target, labels=None)), "need a label for each"),
    ],
)
def test_what_is_missing_is_named(trial, attack, change, said):
    with pytest.raises(ValueError, match=said):
        attack.attack(replace(trial.unlearned, **change(trial.unlearned)), 0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ClassifierRMIA(fpr=1.0), "fpr"),
        (lambda: ClassifierResidual(tau=0), "tau"),
        (lambda: ClassifierResidual(norm="l1"), "not one of linf, l2"),
        (lambda: ClassifierResidual(low=1.0, high=-1.0), "is empty"),
        (lambda: ClassifierRelearning(share=2.0), "share"),
        (
            lambda: classifier_target("a", UNSEEN.pixel_values, UNSEEN.label_tensor).reader(UNSEEN.pixel_values),
            "itself",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_trial_keeps_the_held_out_samples_of_the_forgotten_classes(trial):
    images, labels = UNSEEN.pixel_values, UNSEEN.label_tensor
    forget = images[:2], torch.tensor([3, 1])
    made = classifier_trial(None, "original", forget, (images, labels), [1, 2])
    assert set(made.unlearned.unseen.labels.tolist()) == {1, 3} and made.unlearned.references == (1, 2)
    assert torch.equal(made.unlearned.unseen.images, images[(labels == 1) | (labels == 3)])
    assert made.ceiling.model == "original" and made.negative is None is made.positive
    with pytest.raises(ValueError, match="no unseen sample is of a class"):
        classifier_trial(None, None, forget, (images, 0 * labels), [1])
