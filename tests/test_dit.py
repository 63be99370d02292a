"""DiT: what diffusers' own network does, the variational term against its formula, resume-safe label dropout."""

import math
import subprocess
import sys

import numpy
import pytest
import torch
from conftest import config, tiny_dit
from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from scipy import stats

from hf_unlearn import DiTPrediction, SFRon, UnlearnTrainer, split_by_label
from hf_unlearn.data.images import ArrayDataset


def latent_data(count: int = 16) -> ArrayDataset:
    generator = torch.Generator().manual_seed(1)
    return ArrayDataset(torch.randn(count, 4, 4, 4, generator=generator), torch.arange(count) % 4)


def batch_of(objective, timesteps=None):
    data = latent_data()
    batch = {"pixel_values": data.pixel_values[:4], "labels": data.label_tensor[:4]}
    batch |= objective.draw(batch, torch.Generator().manual_seed(0))
    return batch if timesteps is None else {**batch, "timesteps": torch.tensor(timesteps)}


def test_the_loss_is_the_noise_half_under_our_own_dropped_labels():
    pipeline, objective = tiny_dit(), DiTPrediction(tiny_dit(), label_dropout=0.5)
    batch = batch_of(objective)
    assert batch["drop_labels"].any() and not batch["drop_labels"].all()
    noisy = pipeline.scheduler.add_noise(batch["pixel_values"], batch["noise"], batch["timesteps"])
    labels = torch.where(batch["drop_labels"], 4, batch["labels"])
    with torch.no_grad():
        out = pipeline.transformer.eval()(noisy, timestep=batch["timesteps"], class_labels=labels).sample
        expected = (out[:, :4] - batch["noise"]).pow(2).mean((1, 2, 3))
        losses = [objective.train()(**batch), objective.train()(**batch), objective.eval()(**batch)]
    assert all(torch.allclose(x, expected, atol=1e-6) for x in losses)


def test_diffusers_drops_labels_by_itself_in_train_mode():
    """The fault that the objective switches off: two forwards of one batch in train mode differ."""
    network = tiny_dit().transformer.train()
    noisy, t, labels = torch.randn(64, 4, 4, 4), torch.full((64,), 5), torch.zeros(64, dtype=torch.long)
    with torch.no_grad():
        torch.manual_seed(0)
        assert not torch.equal(*(network(noisy, timestep=t, class_labels=labels).sample for _ in range(2)))


@pytest.mark.parametrize("timesteps", [[1, 300, 700, 999], [0, 0, 0, 0]])
def test_variational_term_by_its_formula(timesteps):
    """Sample by sample in float64, from the definitions of q and p; the densities are scipy's."""
    pipeline = tiny_dit()
    objective = DiTPrediction(pipeline, variance_weight=1.0)
    batch = batch_of(objective, timesteps)
    noisy = pipeline.scheduler.add_noise(batch["pixel_values"], batch["noise"], batch["timesteps"])
    out = objective.denoise(objective.network.eval(), noisy, batch["timesteps"], batch["labels"]).detach()
    noise, variance = out.split(4, dim=1)
    ours = objective.variational_term(noise, variance, batch["pixel_values"], noisy, batch["timesteps"])
    betas = pipeline.scheduler.betas.double().numpy()
    bars = numpy.cumprod(1 - betas)
    for i, t in enumerate(timesteps):
        x0, xt, eps, v = (z[i].double().numpy() for z in (batch["pixel_values"], noisy, noise, variance))
        before = bars[t - 1] if t else 1.0
        first = numpy.sqrt(before) * betas[t] / (1 - bars[t])
        second = numpy.sqrt(1 - betas[t]) * (1 - before) / (1 - bars[t])
        posterior = betas[max(t, 1)] * (1 - bars[max(t, 1) - 1]) / (1 - bars[max(t, 1)])
        guess = (xt - numpy.sqrt(1 - bars[t]) * eps) / numpy.sqrt(bars[t])
        share = (v + 1) / 2
        sigma = numpy.exp((share * numpy.log(betas[t]) + (1 - share) * numpy.log(posterior)) / 2)
        mean = first * guess + second * xt
        if t:
            true = first * x0 + second * xt
            term = numpy.log(sigma / math.sqrt(posterior)) + (posterior + (true - mean) ** 2) / (2 * sigma**2) - 0.5
        else:
            low, high = (stats.norm.cdf((x0 + side / 255 - mean) / sigma) for side in (-1, 1))
            mass = numpy.where(x0 < -0.999, high, numpy.where(x0 > 0.999, 1 - low, high - low))
            term = -numpy.log(numpy.maximum(mass, 1e-12))
        assert ours[i].item() == pytest.approx(term.mean() / math.log(2), rel=2e-3)


def test_the_variational_term_trains_the_variance_half_alone():
    objective = DiTPrediction(tiny_dit(), variance_weight=1.0).eval()
    batch = batch_of(objective)
    plain = DiTPrediction(tiny_dit()).eval()
    assert (objective(**batch) > plain(**batch)).all()
    last = objective.network.proj_out_2.weight
    (with_term,) = torch.autograd.grad(objective(**batch).sum(), last)
    (without,) = torch.autograd.grad(plain(**batch).sum(), plain.network.proj_out_2.weight)
    rows = torch.arange(len(last)).view(4, 8)  # (patch, channel)
    assert torch.allclose(with_term[rows[:, :4]], without[rows[:, :4]], atol=1e-6)
    assert without[rows[:, 4:]].abs().max() == 0 and with_term[rows[:, 4:]].abs().max() > 1e-4


def test_unlearned_dit_reloads_in_plain_diffusers(tmp_path):
    pipeline = tiny_dit()
    pipeline.set_progress_bar_config(disable=True)
    parts = split_by_label(latent_data(), 1)
    trainer = UnlearnTrainer(pipeline, config(tmp_path / "run", max_steps=2), SFRon(fisher_batch_size=4), *parts)
    assert isinstance(trainer.objective, DiTPrediction)
    trainer.train()
    trainer.save_model(str(tmp_path / "out"))
    draw = dict(num_inference_steps=2, guidance_scale=1.0, output_type="np")
    here = pipeline([1, 2], generator=torch.manual_seed(3), **draw).images
    code = """
import sys, numpy, torch
sys.modules["hf_unlearn"] = None
from diffusers import DiTPipeline
torch.set_num_threads(1)
pipeline = DiTPipeline.from_pretrained(sys.argv[1])
draw = dict(num_inference_steps=2, guidance_scale=1.0, output_type="np")
numpy.save(sys.argv[2], pipeline([1, 2], generator=torch.manual_seed(3), **draw).images)
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "out", tmp_path / "x.npy"], check=True, capture_output=True)
    assert numpy.array_equal(numpy.load(tmp_path / "x.npy"), here)


def test_bad_models_are_one_line():
    network = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=1, sample_size=4, num_embeds_ada_norm=4
    )
    pipeline = DiTPipeline(network, tiny_dit().vae, DDIMScheduler(1000))
    with pytest.raises(ValueError, match="no variance half: set variance_weight=0"):
        DiTPrediction(pipeline, variance_weight=1.0)
    pipeline = DiTPipeline(network, tiny_dit().vae, DDIMScheduler(1000, prediction_type="v_prediction"))
    with pytest.raises(ValueError, match="a DiT predicts noise"):
        DiTPrediction(pipeline)
