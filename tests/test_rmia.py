"""RMIA against a loop over pairs, its order from never seen to fitted, and what it refuses."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from hf_unlearn.evaluation.classification import Predictions
from hf_unlearn.evaluation.rmia import log_of_label, log_ratio, of_classes, rmia, rmia_scores

CLASSES = 3


def outputs(count: int, seed: int, boost: float = 0.0) -> Predictions:
    """Logits around a difficulty of each sample that all models share, higher at the label by `boost`."""
    labels = torch.arange(count) % CLASSES
    difficulty = 2 * torch.randn(count, generator=torch.Generator().manual_seed(count))
    logits = torch.randn(count, CLASSES, generator=torch.Generator().manual_seed(seed))
    logits[torch.arange(count), labels] += difficulty + boost
    return Predictions(logits, labels)


REFERENCES = [(outputs(31, 10 + k), outputs(23, 20 + k)) for k in range(4)]


@pytest.mark.parametrize(("gamma", "scale"), [(1.0, 1.0), (2.0, 0.3), (1.5, 0.0)])
def test_the_area_by_hand(gamma, scale):
    forget, holdout = outputs(31, 1, 1.0), outputs(23, 2)

    def ratio(ours, references):
        found = []
        for i in range(len(ours.labels)):
            y = int(ours.labels[i])
            p, *others = (torch.softmax(o.logits[i].double(), 0)[y].item() for o in (ours, *references))
            mean = sum(others) / len(others)
            found.append(p / (((1 + scale) * mean + 1 - scale) / 2))
        return found

    x, z = ratio(forget, [r[0] for r in REFERENCES]), ratio(holdout, [r[1] for r in REFERENCES])
    members = [sum(r / other >= gamma for other in z) / len(z) for r in x]
    strangers = [
        sum(r / other >= gamma for j, other in enumerate(z) if j != i) / (len(z) - 1) for i, r in enumerate(z)
    ]
    metric = rmia(forget, holdout, REFERENCES, gamma, scale)
    expected = roc_auc_score([1] * 31 + [0] * 23, members + strangers)
    assert metric.value == pytest.approx(expected, abs=1e-6) and 0.5 < metric.value < 1
    assert metric.details["mean_log_ratio"] == pytest.approx(sum(map(math.log, x)) / 31, abs=1e-6)
    low, high = metric.details["interval"]
    assert low < metric.value < high and metric.samples == 31 and metric.details["holdout_samples"] == 23


def test_the_area_rises_as_the_samples_are_fitted_more():
    holdout = outputs(23, 2)
    values = [rmia(outputs(31, 1, boost), holdout, REFERENCES).value for boost in (-6.0, 0.0, 2.0, 8.0)]
    assert values == sorted(values) and values[0] < 0.3 and 0.3 < values[1] < 0.7 and values[3] > 0.8


def test_a_sample_harder_than_others_is_no_member_for_that():
    """Its probability is small under all models: the references take the difficulty off, which confidence does not."""
    forget, holdout = outputs(31, 1), outputs(23, 2)
    easy = Predictions(forget.logits + 4 * torch.eye(CLASSES)[forget.labels], forget.labels)
    references = [
        (Predictions(r[0].logits + 4 * torch.eye(CLASSES)[r[0].labels], r[0].labels), r[1]) for r in REFERENCES
    ]
    confidences = (log_of_label(easy) > log_of_label(holdout).median()).double().mean()
    assert confidences > 0.9 and abs(rmia(easy, holdout, references).value - 0.5) < 0.15


def test_probabilities_that_round_to_0_have_finite_ratios():
    sure = Predictions(torch.tensor([[0.0, 2000.0]]), torch.tensor([0]))
    assert log_of_label(sure).tolist() == [-2000]
    assert log_ratio(log_of_label(sure), torch.tensor([[-1990.0], [-2010.0]]).double()).item() == pytest.approx(
        -10 + math.log(2)
    )


def test_equal_samples_are_at_chance():
    same = Predictions(torch.zeros(6, 2), torch.zeros(6, dtype=torch.long))
    assert rmia(same, same, [(same, same)]).value == 0.5


def test_what_is_missing_is_named():
    forget, holdout = outputs(31, 1), outputs(23, 2)
    with pytest.raises(ValueError, match="at least one reference model"):
        rmia(forget, holdout, [])
    with pytest.raises(ValueError, match="held-out samples are not those"):
        rmia(forget, holdout, [(forget, outputs(24, 2))])
    with pytest.raises(ValueError, match="gamma must be above 0"):
        rmia(forget, holdout, REFERENCES, gamma=0)
    with pytest.raises(ValueError, match="scale is a in"):
        rmia(forget, holdout, REFERENCES, scale=2)
    with pytest.raises(ValueError, match="no population"):
        rmia_scores(torch.zeros(1), torch.zeros(1), same=True)
    with pytest.raises(ValueError, match=r"give \(N,\) and \(R, N\)"):
        log_ratio(torch.zeros(3), torch.zeros(2, 4))


def test_held_out_samples_of_some_classes():
    part = of_classes(outputs(9, 0), [2, 0])
    assert part.labels.tolist() == [0, 2] * 3 and torch.equal(part.logits, outputs(9, 0).logits[[0, 2, 3, 5, 6, 8]])
    with pytest.raises(ValueError, match="no held-out sample"):
        of_classes(outputs(9, 0), [7])
