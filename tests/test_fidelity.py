"""Distances between sets of pictures against their formulas in numpy, in features and in the latents of a VAE."""

import numpy
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image
from scipy import linalg

from hf_unlearn.evaluation.fidelity import (
    feature_distance,
    features_of,
    fidelity,
    latent_distance,
    latents_of,
    manifold_share,
)


def pictures(seed: int, count: int = 4) -> torch.Tensor:
    coarse = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear").tanh()


class Small(torch.nn.Module):
    """Six features: the colours' means and spreads."""

    num_features = 6
    name = label = "Small-net"

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(3.0))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * torch.cat([images.mean((2, 3)), images.std((2, 3))], 1)


def test_distance_by_the_formula():
    real, made = pictures(0, 12), pictures(1, 12)
    a, b = (features_of(Small(), x).double().numpy() for x in (real, made))
    root = linalg.sqrtm(numpy.cov(a.T) @ numpy.cov(b.T)).real.trace()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + numpy.cov(a.T).trace() + numpy.cov(b.T).trace() - 2 * root
    metric = feature_distance(Small(), real, made)
    assert metric.value == pytest.approx(expected, rel=1e-2)
    assert "not an FID" in metric.definition and metric.samples == 12
    assert feature_distance(Small(), real, real).value == pytest.approx(0, abs=1e-2)


def test_one_picture_is_too_few():
    with pytest.raises(ValueError, match="at least two pictures"):
        feature_distance(Small(), pictures(0, 1), pictures(1))


@pytest.mark.parametrize("kind", ["kl", "tiny"])
def test_latents_are_those_that_the_unet_sees(kind):
    """Every picture by itself, the mean of the posterior, shifted and scaled."""
    torch.manual_seed(0)
    vae = (
        AutoencoderKL(latent_channels=2, block_out_channels=(8,), norm_num_groups=4, shift_factor=0.1)
        if kind == "kl"
        else AutoencoderTiny(
            latent_channels=2,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        )
    )
    generator = numpy.random.default_rng(0)
    shown = [Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=numpy.uint8)) for _ in range(5)]
    latents = latents_of(vae, shown, batch_size=2)
    for picture, latent in zip(shown, latents, strict=True):
        pixels = torch.tensor(numpy.asarray(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            found = vae.encode(pixels)
        mean = found.latents if kind == "tiny" else found.latent_dist.mean
        expected = (mean - (0.1 if kind == "kl" else 0.0)) * vae.config.scaling_factor
        assert torch.allclose(latent, expected[0], atol=1e-5)
    with torch.no_grad():
        next(vae.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite.*set feature_model"):
        latents_of(vae, shown)


def test_latent_distance_by_the_formula():
    before, after = (torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    a, b = (x.double().numpy().reshape(3, 32) for x in (before, after))
    metric = latent_distance(before, after)
    assert metric.value == pytest.approx(numpy.mean(numpy.sqrt(((a - b) ** 2).mean(1))))
    between = numpy.mean([numpy.sqrt(((a[i] - a[j]) ** 2).mean()) for i, j in ((0, 1), (0, 2), (1, 2))])
    assert metric.details["between_prompts"] == pytest.approx(between) and metric.samples == 3
    assert latent_distance(before, before).value == 0
    assert latent_distance(before[:1], after[:1]).details == {}
    for one, other in ((before[:0], after[:0]), (before, after[:2])):
        with pytest.raises(ValueError, match="compares pairs"):
            latent_distance(one, other)


def test_other_networks_give_other_names_and_the_formulas():
    real, made = pictures(2, 30), pictures(3, 20) * 0.9
    found = fidelity(Small(), real, made)
    names = ["frechet_distance_small_net", "kernel_distance_small_net", "precision_small_net", "recall_small_net"]
    assert list(found) == names
    a, b = (features_of(Small(), side).double().numpy() for side in (real, made))
    root = linalg.sqrtm(numpy.cov(a.T) @ numpy.cov(b.T)).real.trace()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + numpy.cov(a.T).trace() + numpy.cov(b.T).trace() - 2 * root
    assert found[names[0]].value == pytest.approx(expected, rel=1e-5)
    assert found[names[0]].definition.startswith("Frechet distance of 6 Small-net features; not an FID")
    assert "not a KID" in found[names[1]].definition and found[names[1]].details["real"] == 30

    def inside(point, others) -> bool:
        radii = [sorted(numpy.linalg.norm(o - p) for p in others)[3] for o in others]
        return any(numpy.linalg.norm(point - o) <= r for o, r in zip(others, radii))

    shares = sum(inside(p, a) for p in b) / 20, sum(inside(p, b) for p in a) / 30
    assert (found[names[2]].value, found[names[3]].value) == pytest.approx(shares)
    assert 0 < min(shares) and max(shares) <= 1


def test_kernel_distance_of_equal_sides_is_exact_and_repeats():
    """Unequal sides draw subsets, from a seed of their own; equal ones need none."""
    real, made = pictures(4, 9), pictures(5, 9)
    a, b = (features_of(Small(), side).double().numpy() for side in (real, made))
    same = sum(((s[i] @ s[j]) / 6 + 1) ** 3 for s in (a, b) for i in range(9) for j in range(9) if i != j) / 72
    other = sum(((u @ v) / 6 + 1) ** 3 for u in a for v in b) / 81
    assert fidelity(Small(), real, made)["kernel_distance_small_net"].value == pytest.approx(same - 2 * other)
    values = [fidelity(Small(), real, made[:7])["kernel_distance_small_net"].value for _ in range(2)]
    assert values[0] == values[1]


def test_precision_counts_the_edge_of_a_ball_and_batches_change_nothing():
    """On a line at 0, 1, 2, 3, 10: the balls to the third neighbour are 3, 2, 2, 3 and 9 wide."""
    reference = torch.tensor([[0.0], [1], [2], [3], [10]])
    points = torch.tensor([[-3.0], [-3.1], [6], [19], [19.1]])
    for batch_size in (1, 2, 1000):
        assert manifold_share(points, reference, 3, batch_size) == pytest.approx(3 / 5)


def test_pil_pictures_are_tensors_and_too_few_are_refused():
    made = pictures(6)
    bytes_ = ((made + 1) * 127.5).round()
    shown = [Image.fromarray(p.permute(1, 2, 0).byte().numpy()) for p in bytes_]
    assert torch.allclose(features_of(Small(), shown, 3), features_of(Small(), bytes_ / 127.5 - 1), atol=1e-5)
    with pytest.raises(ValueError, match="at least four pictures on each side, got 4 real and 3 generated"):
        fidelity(Small(), made, made[:3])
