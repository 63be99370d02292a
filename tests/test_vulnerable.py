"""The likelihood ratio on vulnerable samples: which are chosen, the rate by hand, and its intervals."""

import numpy as np
import pytest
import torch

from hf_unlearn.evaluation.shadow import likelihood_ratio
from hf_unlearn.evaluation.vulnerable import most_vulnerable, vulnerability, vulnerable_ratio


def shadows(models: int, moved: torch.Tensor, seed: int) -> torch.Tensor:
    """(models, N) scores of spread 1 around each sample's own shift."""
    return moved + torch.randn(models, len(moved), generator=torch.Generator().manual_seed(seed))


MOVED = torch.zeros(200)
MOVED[[3, 50, 111, 180]] = 6.0
MOVED[[7, 90]] = -6.0


def test_vulnerability_by_hand():
    members, strangers = shadows(16, MOVED, 0), shadows(12, 0 * MOVED, 1)
    found = vulnerability(members, strangers)
    for i in (0, 3, 7):
        a, b = members[:, i].double().numpy(), strangers[:, i].double().numpy()
        expected = abs(a.mean() - b.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
        assert found[i].item() == pytest.approx(expected, abs=1e-6)


def test_the_samples_that_training_moves_are_chosen():
    members, strangers = shadows(16, MOVED, 0), shadows(32, 0 * MOVED, 1)
    assert most_vulnerable(members, strangers, 0.03, least=1).tolist() == [3, 7, 50, 90, 111, 180]
    assert (
        len(most_vulnerable(members, strangers, 0.1)) == 20 and len(most_vulnerable(members, strangers, 0.001)) == 10
    )
    assert most_vulnerable(members[:, :4], strangers[:, :4]).tolist() == [0, 1, 2, 3]


def test_the_rate_is_that_of_a_loop_over_models():
    chosen = torch.tensor([3, 7, 11, 50])
    unlearned, retrained = shadows(16, MOVED / 2, 2), shadows(16, 0 * MOVED, 3)
    sides = [[], []]
    for i in range(16):
        rest = [k for k in range(16) if k != i]
        for side, scores in zip(sides, (unlearned, retrained)):
            ratios = likelihood_ratio(scores[i], unlearned[rest], retrained[rest])
            side += ratios[chosen].tolist()
    negative = sorted(sides[1], reverse=True)
    threshold = negative[int(0.01 * len(negative))]
    metric = vulnerable_ratio(unlearned, retrained, chosen)
    assert metric.value == pytest.approx(sum(s > threshold for s in sides[0]) / len(sides[0]), abs=1e-6)
    assert 0 < metric.value < 1 and metric.samples == 4
    assert metric.details["models"] == 16 and metric.details["of_samples"] == 200


def test_what_an_average_over_all_samples_hides_is_found():
    """Six of 200 samples are left as they were: few of all scores, nearly all scores of the vulnerable."""
    members, strangers = shadows(16, MOVED, 0), shadows(16, 0 * MOVED, 1)
    chosen = most_vulnerable(members, strangers, 0.03, least=1)
    others = shadows(16, 0 * MOVED, 4)
    found, everything = vulnerable_ratio(members, others, chosen), vulnerable_ratio(members, others, torch.arange(200))
    assert found.value > 0.9 and everything.value < 0.1
    low, high = found.details["interval"]
    assert 0.6 < low <= found.value <= high
    control = vulnerable_ratio(shadows(16, 0 * MOVED, 5), others, chosen)
    assert control.value < 0.15 and control.details["interval"][0] <= 0.01
    assert control.details["auc_interval"][0] < 0.5 < control.details["auc_interval"][1]


def test_too_few_shadows_and_nothing_chosen_are_refused():
    few = shadows(8, MOVED, 0)
    with pytest.raises(ValueError, match="8 shadow models a side: rates at 1 % of false positives need 16"):
        vulnerable_ratio(few, few, torch.arange(3))
    with pytest.raises(ValueError, match="no sample is chosen"):
        vulnerable_ratio(shadows(16, MOVED, 0), shadows(16, MOVED, 1), torch.tensor([], dtype=torch.long))
    with pytest.raises(ValueError, match="at least 2 shadow models"):
        vulnerability(few[:1], few)
    with pytest.raises(ValueError, match="share must lie"):
        most_vulnerable(few, few, 0.0)
