"""What a GPU must do as a CPU does; the same code runs here on a CPU, so that it is tested where there is no GPU."""

import pytest
import torch
from conftest import config, latents, tiny_sd

from hf_unlearn import METHODS, TextToImage, UnlearnTrainer, add_lora, encode_prompts, split_by_label
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline
from hf_unlearn.saliency.fisher import fisher
from hf_unlearn.saliency.ranks import choose_lora

TEXTS = ["a photo of a church", "a photo of a house", "a dog"]
CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
)
DEVICES = pytest.mark.parametrize("device", ["cpu", CUDA])


def objective_of(lora: bool = False) -> TextToImage:
    pipeline = tiny_sd(0)
    objective = TextToImage(pipeline, encode_prompts(pipeline, TEXTS), {TEXTS[0]: TEXTS[1]})
    if lora:
        add_lora(objective, choose_lora(objective, None, None, "all", rank=2))
    return objective


def trainer_of(folder, device: str, lora: bool = False, **options) -> UnlearnTrainer:
    objective = objective_of(lora)
    forget, retain = split_by_label(latents(objective.prompts), [1])
    args = config(folder, **{"max_steps": 2, **options, "use_cpu": device == "cpu"})
    return UnlearnTrainer(objective, args, METHODS["sfron"](use_mask=False), forget, retain)


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.cpu().clone() for name, value in trainer.objective.network.state_dict().items()}


@DEVICES
@pytest.mark.parametrize("lora", [False, True])
def test_the_same_weights_as_on_a_cpu(tmp_path, device, lora):
    there, here = trainer_of(tmp_path / "there", device, lora), trainer_of(tmp_path / "here", "cpu", lora)
    start = weights(here)
    for trainer in (there, here):
        trainer.train()
    moved = sum((weights(here)[name] - value).pow(2).sum() for name, value in start.items()).sqrt()
    apart = sum((weights(there)[name] - value).pow(2).sum() for name, value in weights(here).items()).sqrt()
    assert moved > 1e-3 and apart < 0.02 * moved


@DEVICES
def test_a_resumed_run_is_a_straight_one(tmp_path, device):
    straight = trainer_of(tmp_path, device, save_strategy="steps", save_steps=1)
    straight.train()
    resumed = trainer_of(tmp_path, device, save_strategy="steps", save_steps=1)
    resumed.train(str(tmp_path / "checkpoint-1"))
    assert all(torch.allclose(v, weights(resumed)[n], rtol=1e-4, atol=1e-6) for n, v in weights(straight).items())


@DEVICES
def test_an_original_on_the_host_changes_nothing(tmp_path, device):
    kept, moved = trainer_of(tmp_path / "kept", device), trainer_of(tmp_path / "moved", device, offload=True)
    for trainer in (kept, moved):
        trainer.train()
    assert all(torch.allclose(v, weights(moved)[n], rtol=1e-4, atol=1e-6) for n, v in weights(kept).items())


@DEVICES
def test_half_precision_saves_what_plain_diffusers_loads(tmp_path, device):
    trainer = trainer_of(tmp_path, device, bf16=True)
    trainer.train()
    trainer.save_model()
    loaded = load_text_to_image_pipeline(str(tmp_path)).unet.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights(trainer).items())
    assert {value.dtype for value in loaded.values()} == {torch.float32}


@DEVICES
@pytest.mark.parametrize("estimator", ["sample", "batch"])
def test_the_same_fisher_as_on_a_cpu(device, estimator):
    found = []
    for place in (device, "cpu"):
        objective = objective_of().to(place).eval()
        forget, _ = split_by_label(latents(objective.prompts), [1])
        sums, _ = fisher(objective, forget, True, estimator=estimator, max_samples=4, batch_size=2)
        found.append(torch.cat([value.cpu().flatten() for value in sums.values()]))
    assert found[1].sum() > 0 and (found[0] - found[1]).abs().sum() < 0.02 * found[1].sum()
