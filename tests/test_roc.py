"""ROC figures against scikit-learn, and the interval of an area against the equation it solves."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from hf_unlearn.evaluation.roc import auc, auc_interval, tpr_at


def test_area_and_rates_are_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    positive = (torch.randn(57, generator=generator) + 1).round(decimals=1)
    negative = torch.randn(130, generator=generator).round(decimals=1)
    truth, scores = [1] * 57 + [0] * 130, torch.cat([positive, negative]).tolist()
    assert auc(positive, negative) == pytest.approx(roc_auc_score(truth, scores))
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    for rate in (0.01, 0.05, 0.1):
        assert tpr_at(positive, negative, rate) == pytest.approx(tpr[fpr <= rate].max())


def test_a_rate_that_is_a_whole_number_of_negatives_allows_all_of_them():
    """0.1 * 30 is 3.0000000000000004 and 0.3 * 10 is 2.9999999999999996 in other roundings."""
    assert tpr_at(torch.tensor([7.5]), torch.arange(10.0), 0.3) == 1
    assert tpr_at(torch.tensor([6.5, 5.5]), torch.arange(10.0), 0.3) == 0.5


@pytest.mark.parametrize(("value", "m", "n"), [(0.5, 20, 30), (0.8, 126, 270), (1.0, 126, 270), (0.0, 5, 5)])
def test_interval_solves_newcombes_equation(value, m, n):
    low, high = auc_interval(value, m, n)
    assert 0 <= low <= value <= high <= 1 and high - low > 0.01
    for a in (low, high):
        if a in (0.0, 1.0):
            assert a == value
            continue
        q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
        mean = (m + n) / 2 - 1  # Hanley & McNeil with both counts at their mean
        variance = (a * (1 - a) + mean * (q1 - a * a) + mean * (q2 - a * a)) / (m * n)
        assert abs(value - a) == pytest.approx(1.959964 * math.sqrt(variance), abs=1e-6)


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="0 positives and 3 negatives"):
        auc_interval(0.5, 0, 3)
