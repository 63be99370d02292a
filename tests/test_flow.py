"""Flow matching's schedule: noise, target, times, draws and weights, against the scheduler and diffusers' scripts."""

import numpy
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3
from pipeline_cases import tiny_sd3

from hf_unlearn import TextToImage, encode_prompts
from hf_unlearn.families import FlowSchedule

EULER = FlowMatchEulerDiscreteScheduler(shift=3.0)


def test_noise_and_times_are_the_schedulers():
    schedule, generator = FlowSchedule(EULER), torch.Generator().manual_seed(0)
    images, noise = torch.randn(2, 4, 2, 8, 8, generator=generator)
    timesteps = torch.tensor([0, 10, 500, 999])
    times = schedule.times(timesteps)
    assert torch.allclose(times, EULER.timesteps.flip(0)[timesteps], rtol=1e-6)
    wanted = EULER.scale_noise(images, EULER.timesteps.flip(0)[timesteps], noise)
    assert torch.allclose(schedule.add_noise(images, noise, timesteps), wanted, atol=1e-6)
    assert torch.equal(schedule.target(images, noise, timesteps), noise - images)


def test_shifts():
    even = torch.arange(1, 1001) / 1000
    assert torch.allclose(FlowSchedule(EULER).sigmas, 3 * even / (1 + 2 * even), atol=1e-6)
    dynamic = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    shifted = numpy.exp(0.8) / (numpy.exp(0.8) + 1 / even - 1)
    assert torch.allclose(FlowSchedule(dynamic, mu=0.8).sigmas, shifted.float(), atol=1e-6)
    solver = DPMSolverMultistepScheduler(use_flow_sigmas=True, flow_shift=2.0, prediction_type="flow_prediction")
    assert FlowSchedule.fits(solver) and not FlowSchedule.fits(DPMSolverMultistepScheduler())
    assert torch.allclose(FlowSchedule(solver).sigmas, 2 * even / (1 + even), atol=1e-6)


@pytest.mark.parametrize(("scheme", "mean", "std"), [("none", 0.0, 1.0), ("logit_normal", 0.5, 0.7)])
def test_draws_are_those_of_diffusers_scripts(scheme, mean, std):
    schedule = FlowSchedule(EULER, None, scheme, mean, std)
    drawn = schedule.draw(64, torch.Generator().manual_seed(0), antithetic=False)
    u = compute_density_for_timestep_sampling(
        scheme, 64, mean, std, generator=torch.Generator().manual_seed(0)
    )  # their scripts take scheduler.timesteps[(u * 1000).long()]
    assert torch.allclose(schedule.times(drawn), EULER.timesteps[(u * 1000).long()], rtol=1e-6)


@pytest.mark.parametrize(("scheme", "mean"), [("none", 0.0), ("logit_normal", 0.0), ("logit_normal", 0.8)])
def test_pairs_and_parts(scheme, mean):
    """Both halves of the pairs are drawn alike, and each part of the schedule equally often."""
    schedule = FlowSchedule(EULER, None, scheme, mean)
    drawn = schedule.draw(20_001, torch.Generator().manual_seed(1), antithetic=True)
    assert len(drawn) == 20_001 and drawn.min() >= 0 and drawn.max() <= 999
    first, second = drawn[:10_000].double(), drawn[10_001:].double()
    assert abs(first.mean() - second.mean()) < 12
    if mean == 0:
        assert ((first + second - 999).abs() <= 1).all()
    else:
        assert drawn.double().mean() < 450  # above 0 there is less noise
    counts = schedule.bins(drawn, 10).bincount(minlength=10)
    assert counts.min() > 1800 and counts.max() < 2200
    assert (schedule.bins(torch.arange(1000), 10).diff() >= 0).all()


@pytest.mark.parametrize("scheme", ["sigma_sqrt", "cosmap"])
def test_errors_are_weighted_as_in_diffusers_scripts(scheme):
    pipeline = tiny_sd3(with_t5=False)
    prompts = encode_prompts(pipeline, ["a dog"])
    plain, weighted = TextToImage(pipeline, prompts), TextToImage(pipeline, prompts, weighting_scheme=scheme)
    batch = {"pixel_values": torch.randn(4, 4, 8, 8), "labels": torch.tensor([1, 0, 1, 1])}
    batch |= plain.draw(batch, torch.Generator().manual_seed(0))
    sigmas = plain.schedule.sigmas[batch["timesteps"]]
    with torch.no_grad():
        wanted = compute_loss_weighting_for_sd3(scheme, sigmas) * plain(**batch)
        assert torch.allclose(weighted(**batch), wanted, rtol=1e-5)


def test_what_makes_no_sense_is_one_line():
    from conftest import tiny_sd

    with pytest.raises(ValueError, match="weighting_scheme must be one of none, logit_normal"):
        FlowSchedule(EULER, None, "mode")
    with pytest.raises(ValueError, match="logit_std must be positive"):
        FlowSchedule(EULER, None, "logit_normal", 0.0, 0.0)
    pipeline = tiny_sd()
    with pytest.raises(
        ValueError, match="weighting_scheme is for flow matching, which StableDiffusionPipeline is not"
    ):
        TextToImage(pipeline, encode_prompts(pipeline, []), weighting_scheme="cosmap")
