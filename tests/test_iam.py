"""IAM against scipy's Gumbel distribution, and its order: fitted, half unlearnt, never seen, torn away."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import gumbel_r

from hf_unlearn.evaluation.iam import fitting_score, membership_scores, unlearning_score


def logits_of(p: torch.Tensor) -> torch.Tensor:
    """Two classes, the label 0 has probability `p`."""
    return torch.stack([p.double(), 1 - p.double()], 1).clamp(min=1e-300).log()


def draw(low: float, high: float, seed: int, count: int = 200) -> torch.Tensor:
    return low + (high - low) * torch.rand(count, generator=torch.Generator().manual_seed(seed))


LABELS = torch.zeros(200, dtype=torch.long)


def test_the_fitting_score_by_hand_and_at_its_ends():
    p = torch.tensor([0.0, 0.3, 1.0])
    found = fitting_score(logits_of(p), LABELS[:3])
    low, middle, high = (-math.log(1e-2 - math.log(q + 1e-5)) for q in (0.0, 0.3, 1.0))
    assert found.tolist() == pytest.approx([0, (middle - low) / (high - low), 1], abs=1e-6)


def test_membership_is_the_weighted_mean_of_gumbel_distributions():
    unlearned, original, shadow = (
        torch.rand(40, generator=torch.Generator().manual_seed(s)).double() for s in (0, 1, 2)
    )
    alphas, expected = np.linspace(0, 1, 100), np.zeros(40)
    for j in range(99):
        centres = shadow.numpy() + (original - shadow).numpy() * alphas[j]
        scale = math.sqrt(6) * centres.std() / math.pi
        expected += alphas[j + 1] * gumbel_r.cdf(unlearned.numpy(), centres - 0.5772 * scale, scale)
    expected /= alphas[1:].sum()
    assert membership_scores(unlearned, original, shadow).tolist() == pytest.approx(expected.tolist(), abs=1e-12)


def test_the_score_rises_as_the_samples_are_fitted_less():
    original, shadow = draw(0.99, 1.0, 1), draw(0.3, 0.9, 2)
    retrained = draw(0.3, 0.9, 3)
    given = (original, draw(0.9, 0.97, 5), retrained, draw(0.0, 0.01, 4))
    values = [unlearning_score(*map(logits_of, (u, original, shadow)), LABELS).value for u in given]
    assert values == sorted(values) and values[0] < 0.2 and values[3] > 0.99
    assert values[0] + 0.2 < values[1] < values[2] - 0.1
    metric = unlearning_score(*map(logits_of, (retrained, original, shadow)), LABELS)
    assert metric.samples == 200 and "retrained" in metric.definition and metric.details["spread_over_samples"] > 0


def test_scores_without_any_spread_are_finite():
    """Every sample the same: the distributions are steps, and the score says on which side of them it lies."""
    one = torch.ones(5).double()
    assert membership_scores(0.9 * one, 0.8 * one, 0.2 * one).tolist() == pytest.approx([1] * 5)
    assert membership_scores(0.1 * one, 0.8 * one, 0.2 * one).tolist() == pytest.approx([0] * 5)
    exact = unlearning_score(*(logits_of(torch.ones(3)),) * 3, LABELS[:3])
    assert math.isfinite(exact.value)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"shapes \(3,\), \(3,\), \(4,\): give \(N,\)"):
        membership_scores(torch.zeros(3), torch.zeros(3), torch.zeros(4))
    with pytest.raises(ValueError, match="one per row"):
        unlearning_score(*(logits_of(torch.ones(3)),) * 3, LABELS[:2])
