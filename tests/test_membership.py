import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score, roc_curve

from hf_unlearn.evaluation.membership import (
    FEATURES,
    confidence,
    entropy,
    membership_share,
    modified_entropy,
    scaled_confidence,
)
from hf_unlearn.evaluation.shadow import likelihood_ratio, ulira

P = torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [0.1, 0.1, 0.8], [0.6, 0.3, 0.1]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 2, 1])


def outputs(count: int, margin: float, seed: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of 5 classes, the label's raised by `margin` on average: members have a large margin."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (count,), generator=generator)
    logits = spread * torch.randn(count, 5, generator=generator)
    logits[torch.arange(count), labels] += margin
    return logits, labels


def test_features_by_hand():
    logits = P.log() + torch.tensor([[0.0], [3.0], [-7.0], [1.0]])  # a constant a row changes nothing
    assert confidence(logits, LABELS).tolist() == pytest.approx([0.7, 0.25, 0.8, 0.3])
    assert scaled_confidence(logits, LABELS).tolist() == pytest.approx(
        [math.log(p / (1 - p)) for p in (0.7, 0.25, 0.8, 0.3)]
    )
    assert entropy(logits)[1].item() == pytest.approx(1.5 * math.log(2))
    first = -0.3 * math.log(0.7) - 0.2 * math.log(0.8) - 0.1 * math.log(0.9)
    assert modified_entropy(logits, LABELS)[0].item() == pytest.approx(first)


def test_confidence_is_what_the_cross_entropy_is_the_log_of():
    logits, labels = outputs(50, 1.0, seed=0)
    expected = log_loss(labels.numpy(), logits.double().softmax(1).numpy(), labels=range(5))
    assert -confidence(logits, labels).log().mean().item() == pytest.approx(expected, abs=1e-12)


def modified_entropy_of_one(p: np.ndarray, label: int) -> float:
    others = [j for j in range(len(p)) if j != label]
    return -(1 - p[label]) * math.log(p[label]) - sum(p[j] * math.log(1 - p[j]) for j in others)


def modified_entropy_by_columns(p: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """As released: `[:, labels]` replaces every column that is anybody's label, in all rows."""
    weights, logs = p.clone(), (1 - p).log()
    weights[:, labels], logs[:, labels] = (1 - p)[:, labels], p.log()[:, labels]
    return -(weights * logs).sum(1)


def test_modified_entropy_takes_the_label_of_each_row():
    expected = [modified_entropy_of_one(p, y) for p, y in zip(P.numpy(), LABELS.tolist())]
    assert modified_entropy(P.log(), LABELS).tolist() == pytest.approx(expected)
    released = modified_entropy_by_columns(P, LABELS)
    assert released[:1].tolist() != pytest.approx(expected[:1], abs=0.1)
    alone = torch.cat([modified_entropy_by_columns(P[i : i + 1], LABELS[i : i + 1]) for i in range(4)])
    assert alone.tolist() == pytest.approx(expected)  # a row at a time the released formula is right


def test_probabilities_of_exactly_0_and_1_give_finite_features():
    logits = torch.tensor([[1e4, -1e4, -1e4], [-1e4, 1e4, -1e4]])
    labels = torch.tensor([0, 0])
    assert confidence(logits, labels).tolist() == [1, 0]
    assert entropy(logits).tolist() == [0, 0]
    assert modified_entropy(logits, labels).tolist() == pytest.approx([0, 4e4 - math.log(2)], abs=1e-6)
    assert scaled_confidence(logits, labels).tolist() == pytest.approx([2e4 - math.log(2), -2e4], abs=1e-6)


def test_scaled_confidence_tells_confident_samples_apart():
    """log(p / (1 - p)) of float32 probabilities is infinite from a margin of 17 on."""
    logits = torch.tensor([[20.0, 0.0], [40.0, 0.0]])
    assert scaled_confidence(logits, torch.tensor([0, 0])).tolist() == [20, 40]


def test_logits_and_labels_are_checked():
    for logits, labels, message in (
        (P.log(), LABELS[:3], "one per row"),
        (P.log(), LABELS + 1, r"integers in 0\.\.2"),
        (P.log(), LABELS - 100, r"integers in 0\.\.2"),
        (P.log() / 0, LABELS, "not finite"),
        (P.log()[:, :1], LABELS, "C >= 2"),
    ):
        with pytest.raises(ValueError, match=message):
            confidence(logits, labels)


@pytest.mark.parametrize("attack", ["logistic", "svc"])
@pytest.mark.parametrize("feature", FEATURES)
def test_the_attack_finds_members(feature, attack):
    retain, test = outputs(300, 8.0, seed=0), outputs(300, 0.0, seed=1)
    member = membership_share(retain, test, outputs(200, 8.0, seed=2), feature, attack)
    stranger = membership_share(retain, test, outputs(200, 0.0, seed=3), feature, attack)
    assert member.value > 0.95 and stranger.value < 0.1
    assert member.details["attack_accuracy"] > 0.9 and member.samples == 200
    assert "retain=1" in member.definition and member.library.startswith("scikit-learn 1.")


@pytest.mark.parametrize("attack", ["logistic", "svc"])
def test_the_attack_on_equal_distributions_knows_nothing(attack):
    retain, test = outputs(600, 1.0, seed=0), outputs(600, 1.0, seed=1)
    metric = membership_share(retain, test, outputs(100, 1.0, seed=2), "confidence", attack)
    assert metric.details["attack_accuracy"] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("attack", ["logistic", "svc"])
def test_a_large_retain_set_makes_nobody_a_member(attack):
    """Trained on ten members for each stranger, an SVC judges everything a member."""
    retain, test, forget = outputs(1500, 1.2, seed=0), outputs(150, 0.8, seed=1), outputs(500, 1.0, seed=2)
    metric = membership_share(retain, test, forget, "confidence", attack)
    assert 0.25 < metric.value < 0.75 and metric.details["trained_on"] == 300


def test_samples_are_drawn_by_seed_without_replacement():
    retain, test, forget = outputs(400, 1.5, seed=0), outputs(400, 1.0, seed=1), outputs(300, 1.2, seed=2)
    draws = [membership_share(retain, test, forget, seed=seed, max_samples=40) for seed in (0, 0, 1, 2, 3)]
    assert draws[0] == draws[1] and draws[0].details["trained_on"] == 80
    assert len({draw.value for draw in draws}) > 1
    whole = [membership_share(retain, test, forget, seed=seed).value for seed in (0, 1)]
    assert whole[0] == pytest.approx(whole[1], abs=1e-3)  # all of both sides, whatever the seed


def test_unknown_names_are_listed():
    data = outputs(10, 1.0, seed=0)
    with pytest.raises(
        ValueError, match="unknown feature 'loss': choose one of confidence, entropy, modified_entropy"
    ):
        membership_share(data, data, data, "loss")
    with pytest.raises(ValueError, match="unknown attack 'knn': choose one of logistic, svc"):
        membership_share(data, data, data, "entropy", "knn")


def shadows(models: int, samples: int, mean: float, seed: int) -> torch.Tensor:
    """Scores around a sample's own difficulty (the same for every seed), shifted by `mean`."""
    difficulty = 5 * torch.randn(samples, generator=torch.Generator().manual_seed(99))
    return difficulty + mean + torch.randn(models, samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("models", [4, 8])
def test_likelihood_ratio_is_that_of_two_gaussians_a_sample(models):
    target, inside, outside = shadows(1, 6, 0.5, 0)[0], shadows(models, 6, 1, 1), 2 * shadows(models, 6, 0, 2)
    logs = []
    for side in (inside.double().numpy(), outside.double().numpy()):
        variance = side.var(0, ddof=1)
        scale = np.sqrt(variance if models >= 8 else np.full(6, variance.mean()))
        logs.append(norm.logpdf(target.double().numpy(), side.mean(0), scale))
    assert likelihood_ratio(target, inside, outside).tolist() == pytest.approx(logs[0] - logs[1])


def test_models_that_agree_to_the_last_bit_give_a_finite_ratio():
    same = torch.ones(3, 2)
    assert likelihood_ratio(same[0], same, same).tolist() == [0, 0]
    assert likelihood_ratio(same[0], same, same - 0.1).isfinite().all()


def test_likelihood_ratio_checks_its_scores():
    broken = torch.zeros(3, 5)
    broken[1, 2] = float("nan")
    for unlearned, retrained in ((broken, torch.zeros(3, 5)), (torch.zeros(3, 5), broken)):
        with pytest.raises(ValueError, match="scores are not finite"):
            ulira(unlearned, retrained)
    with pytest.raises(ValueError, match=r"give \(S, N\) and \(N,\)"):
        likelihood_ratio(torch.zeros(4), torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(ValueError, match="S >= 2"):
        likelihood_ratio(torch.zeros(4), torch.zeros(3, 4), torch.zeros(1, 4))


@pytest.mark.parametrize("models", [3, 8])
def test_ulira_is_at_chance_on_equal_shadows_and_near_1_on_shifted_ones(models):
    retrained = shadows(models, 500, 0, seed=1)
    equal, shifted = (
        ulira(shadows(models, 500, 0, seed=2), retrained),
        ulira(shadows(models, 500, 6, seed=2), retrained),
    )
    assert equal.value == pytest.approx(0.5, abs=0.04)
    assert equal.details["auc"] == pytest.approx(0.5, abs=0.05) and equal.details["tpr_at_1_fpr"] < 0.05
    assert shifted.value > 0.97 and shifted.details["auc"] > 0.99 and shifted.details["tpr_at_1_fpr"] > 0.9
    assert equal.samples == 500 and equal.details["models"] == models


def test_ulira_sees_a_shift_far_smaller_than_the_spread_over_samples():
    """Difficulty spreads by 5, unlearning shifts by 2: one threshold for all samples is near chance."""
    unlearned, retrained = shadows(8, 500, 2, seed=2), shadows(8, 500, 0, seed=1)
    threshold = (unlearned.mean() + retrained.mean()) / 2
    population = ((unlearned > threshold).double().mean() + (retrained <= threshold).double().mean()) / 2
    assert population < 0.62 and ulira(unlearned, retrained).value > 0.78


def test_ulira_equals_scikit_learn_on_the_held_out_ratios():
    unlearned, retrained = shadows(4, 60, 0.7, seed=2).round(decimals=1), shadows(4, 60, 0, seed=1).round(decimals=1)
    scores, member = [], []
    for i in range(4):
        rest = [k for k in range(4) if k != i]
        for side, truth in ((unlearned, 1), (retrained, 0)):
            scores += likelihood_ratio(side[i], unlearned[rest], retrained[rest]).tolist()
            member += [truth] * 60
    metric = ulira(unlearned, retrained)
    assert metric.value == pytest.approx(balanced_accuracy_score(member, np.array(scores) > 0))
    assert metric.details["auc"] == pytest.approx(roc_auc_score(member, scores))
    fpr, tpr, _ = roc_curve(member, scores, drop_intermediate=False)
    assert metric.details["tpr_at_1_fpr"] == pytest.approx(tpr[fpr <= 0.01].max())
    assert 0 < metric.details["tpr_at_1_fpr"] < 1


def test_ulira_of_a_model_that_is_a_retrained_one_is_exactly_chance():
    scores = shadows(4, 50, 0, seed=1)
    metric = ulira(scores, scores)
    assert metric.value == 0.5 and metric.details["auc"] == 0.5 and metric.details["tpr_at_1_fpr"] == 0


def test_ulira_needs_three_models_a_side():
    with pytest.raises(ValueError, match="S >= 3 models a side, not 2"):
        ulira(torch.zeros(2, 5), torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"give \(S, N\) for both"):
        ulira(torch.zeros(3, 5), torch.zeros(4, 5))
