"""Residual knowledge against a hand-written count, balls by their geometry, and pixels that stay valid."""

from types import SimpleNamespace

import pytest
import torch

from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.evaluation.residual import in_ball, pixel_range, recognised_nearby, residual_knowledge


class Threshold(torch.nn.Module):
    """Class 1 where the first pixel is above `at`; it keeps what it was shown."""

    def __init__(self, at: float):
        super().__init__()
        self.at, self.device, self.dtype, self.seen = at, torch.device("cpu"), torch.float32, []

    def forward(self, pixel_values):
        self.seen.append(pixel_values)
        first = pixel_values.flatten(1)[:, 0]
        return SimpleNamespace(logits=torch.stack([torch.zeros_like(first), first - self.at], 1))


DATA = ArrayDataset(torch.tensor([0.0, 0.95, -0.2]).view(3, 1, 1, 1).expand(3, 1, 2, 2).clone(), torch.ones(3).long())
VALID = pixel_range(None)


def test_both_models_see_the_same_images_within_ball_and_pixel_range():
    models = [Threshold(0.05), Threshold(0.5)]
    found = recognised_nearby(models, DATA, 0.1, VALID, draws=400, batch_size=150)
    ours, theirs = (torch.cat(model.seen) for model in models)
    assert torch.equal(ours, theirs) and len(ours) == 3 * 400
    middle = DATA.pixel_values.repeat_interleave(400, 0)
    assert (ours - middle).abs().max() <= 0.1 + 1e-6 and ours.max() == 1 and ours.min() >= -1
    expected = [
        [(part.flatten(1)[:, 0] > at).double().mean().item() for part in ours.split(400)] for at in (0.05, 0.5)
    ]
    assert torch.allclose(found, torch.tensor(expected).double(), atol=1e-6)
    assert found[0].tolist()[1:] == [1, 0] and 0.15 < found[0, 0] < 0.35  # a quarter of [-0.1, 0.1] is above 0.05


def test_the_ratio_by_hand():
    metric = residual_knowledge(Threshold(0.05), Threshold(0.5), DATA, 0.1, VALID, draws=400)
    ours, theirs = recognised_nearby([Threshold(0.05), Threshold(0.5)], DATA, 0.1, VALID, draws=400)
    assert metric.value == pytest.approx(ours.sum().item() / theirs.sum().item(), abs=1e-6)
    assert metric.details["more_often_share"] == pytest.approx(1 / 3) and metric.samples == 3
    assert metric.details["interval"][0] == 1.0 and metric.details["interval"][1] is None
    same = residual_knowledge(Threshold(0.05), Threshold(0.05), DATA, 0.1, VALID, draws=400)
    assert same.value == 1 and same.details["more_often_share"] == 0


def test_there_is_no_ratio_to_a_model_that_recognises_nothing():
    metric = residual_knowledge(Threshold(0.5), Threshold(2.0), DATA, 0.1, VALID, draws=20)
    assert metric.value is None and metric.details["recognised"] == pytest.approx(1 / 3)
    assert "interval" not in metric.details


def test_draws_depend_on_seed_only():
    tables = [
        recognised_nearby([Threshold(0.0)], DATA, 0.1, VALID, 50, seed=s, batch_size=b)
        for s, b in ((0, 512), (0, 7), (1, 512))
    ]
    assert torch.equal(tables[0], tables[1]) and not torch.equal(tables[0], tables[2])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_balls_are_filled_evenly(norm):
    """Half of a ball's volume lies within radius 2^(-1/d), of a cube within half side 2^(-1/d) too."""
    moved = in_ball((4000, 1, 2, 2), 0.3, norm, torch.Generator().manual_seed(0)).flatten(1)
    lengths = moved.norm(dim=1) if norm == "l2" else moved.abs().amax(1)
    assert lengths.max() <= 0.3 and (lengths < 0.3 * 0.5**0.25).double().mean() == pytest.approx(0.5, abs=0.03)
    assert moved.mean(0).abs().max() < 0.02


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="tau must be above 0"):
        residual_knowledge(Threshold(0), Threshold(0), DATA, 0.0, VALID)
    with pytest.raises(ValueError, match="not one of linf, l2"):
        in_ball((1, 1, 2, 2), 0.1, "l1", torch.Generator())
    with pytest.raises(ValueError, match="0 draws"):
        recognised_nearby([Threshold(0)], DATA, 0.1, VALID, draws=0)


def test_the_pixel_range_is_what_the_processor_makes_of_black_and_white():
    from conftest import tiny_vit
    from PIL import Image

    from hf_unlearn.families.classifier.inputs import pixels_for, plain_processor

    config = tiny_vit().config
    processor = plain_processor(config, [0.3], [0.2])
    low, high = pixel_range(processor)
    for value, end in ((0, low), (255, high)):
        shown = pixels_for(Image.new("L", (8, 8), value), config, processor)
        assert torch.allclose(shown, end.expand_as(shown), atol=1e-5)
