"""Frechet distances in EfficientNet-Lite0's features, against the formula in numpy."""

import numpy
import pytest
import torch
from scipy import linalg

from hf_unlearn.evaluation.fidelity import EfficientNetLite, feature_distance


@pytest.fixture(scope="module")
def network():
    return EfficientNetLite()


def pictures(seed: int, count: int = 4) -> torch.Tensor:
    coarse = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear").tanh()


def test_distance_by_the_formula(network):
    real, made = pictures(0), pictures(1)
    with torch.no_grad():
        a, b = (network.features(x).double().numpy() for x in (real, made))
    root = linalg.sqrtm(numpy.cov(a.T) @ numpy.cov(b.T)).real.trace()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + numpy.cov(a.T).trace() + numpy.cov(b.T).trace() - 2 * root
    metric = feature_distance(network, real, made)
    assert metric.value == pytest.approx(expected, rel=1e-2)
    assert "not an FID" in metric.definition and metric.samples == 4
    assert feature_distance(network, real, real).value == pytest.approx(0, abs=1e-2)


def test_one_picture_is_too_few(network):
    with pytest.raises(ValueError, match="at least two pictures"):
        feature_distance(network, pictures(0, 1), pictures(1))


def test_inputs_are_what_the_network_was_trained_on(network):
    """Grey level 127 is 0."""
    grey = torch.full((1, 3, 224, 224), 127 / 127.5 - 1)
    assert network._prepared(grey).abs().max() < 1e-5
