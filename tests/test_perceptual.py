"""LPIPS against torchmetrics' own, which has the network from elsewhere; and what is said where a file is missing."""

import pytest
import torch
import torchmetrics.functional.image.lpips as theirs
from PIL import Image

from hf_unlearn.evaluation.perceptual import LPIPS, alexnet


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    network = alexnet()
    state = {f"features.{name}": value for name, value in network.state_dict().items()}
    path = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
    torch.save({**state, "classifier.6.bias": torch.zeros(1000)}, path)
    return path


def reference(score: LPIPS, monkeypatch, resize: int | None = None):
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *_, **__: score.network)
    return theirs._LPIPS(net="alex", resize=resize)


@pytest.mark.parametrize(("size", "resize"), [((70, 96), None), ((16, 20), 64)])
def test_distances_are_those_of_torchmetrics(weights, monkeypatch, size, resize):
    score, generator = LPIPS(weights), torch.Generator().manual_seed(1)
    a, b = (torch.rand(3, 3, *size, generator=generator) * 2 - 1 for _ in range(2))
    expected = reference(score, monkeypatch, resize)(a, b).flatten()
    assert expected.min() > 0.01 and torch.allclose(score.distances(a, b), expected, rtol=1e-4)
    assert score.distances(a, a).abs().max() == 0


def test_the_mean_over_pairs_whatever_the_batch(weights):
    score = LPIPS(weights)
    colours = [Image.new("RGB", (64, 64), (70 * i, 20, 200 - 50 * i)) for i in range(4)]
    pairs = [score(colours[i : i + 1], colours[3 - i : 4 - i]).value for i in range(4)]
    for batch_size in (1, 3, 4):
        metric = score(colours, colours[::-1], batch_size)
        assert metric.value == pytest.approx(sum(pairs) / 4, rel=1e-5) and metric.samples == 4
    with pytest.raises(ValueError, match="pairs of pictures, got 4 and 3"):
        score(colours, colours[1:])


def test_missing_and_wrong_files_are_one_line(weights, tmp_path):
    with pytest.raises(OSError, match="LPIPS needs alexnet-owt-7be5be79.pth, but .*none.pth does not exist"):
        LPIPS(tmp_path / "none.pth")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold AlexNet's ImageNet weights"):
        LPIPS(tmp_path / "other.pth")
