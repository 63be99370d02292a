"""Training the text encoder instead of the UNet: the same losses, its weights alone move, plain diffusers loads it."""

import copy

import pytest
import torch
from conftest import config, latents, tiny_sd, tiny_sdxl
from diffusers import StableDiffusionPipeline

from hf_unlearn import METHODS, SFRon, UnlearnTrainer, encode_prompts, split_by_label
from hf_unlearn.families import TextEncoderToImage, TextToImage, text_to_image_objective
from hf_unlearn.saliency.ranks import choose_lora

TEXTS = ["a cat", "a dog", "a boat"]


def objective_of(pipeline, **options):
    prompts = encode_prompts(pipeline, TEXTS)
    return text_to_image_objective(pipeline, prompts, {"a cat": "a dog"}, train_method="text_encoder", **options)


def test_losses_are_those_of_the_unet_objective():
    pipeline = tiny_sd()
    objective = objective_of(pipeline)
    data = latents(objective.prompts)
    batch = {"pixel_values": data.pixel_values[:6], "labels": data.label_tensor[:6]}
    batch |= objective.draw(batch, torch.Generator().manual_seed(0))
    with torch.no_grad():
        other = TextToImage(tiny_sd(), objective.prompts, label_dropout=0.1).eval()
        assert torch.allclose(objective.eval()(**batch), other(**batch), atol=1e-6)


@pytest.mark.parametrize("method", ["sfron", "esd"])
def test_only_the_text_encoder_moves_and_plain_diffusers_loads_it(method, tmp_path):
    pipeline, start = tiny_sd(), tiny_sd()
    objective = objective_of(pipeline)
    assert isinstance(objective, TextEncoderToImage)
    forget, retain = split_by_label(latents(objective.prompts), 1)
    args = config(tmp_path, max_steps=2)
    trainer = UnlearnTrainer(objective, args, METHODS[method](), forget_dataset=forget, retain_dataset=retain)
    trainer.train()
    trainer.save_model()
    for part, moves in (("unet", False), ("vae", False), ("text_encoder", True)):
        ours, theirs = getattr(pipeline, part).state_dict(), getattr(start, part).state_dict()
        assert any(not torch.equal(ours[n], theirs[n]) for n in ours) == moves
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path)
    weights = loaded.text_encoder.state_dict()
    assert all(torch.equal(v, weights[n]) for n, v in pipeline.text_encoder.state_dict().items())


def test_resumed_is_straight(tmp_path):
    def trainer(folder, **values):
        objective = objective_of(tiny_sd())
        parts = split_by_label(latents(objective.prompts), 1)
        return UnlearnTrainer(objective, config(folder, max_steps=3, **values), SFRon(), *parts)

    straight = trainer(tmp_path / "a", save_strategy="steps", save_steps=2)
    straight.train()
    resumed = trainer(tmp_path / "b")
    resumed.train(resume_from_checkpoint=str(tmp_path / "a/checkpoint-2"))
    states = [t.objective.network.state_dict() for t in (straight, resumed)]
    assert all(torch.equal(v, states[1][n]) for n, v in states[0].items())


def test_what_it_is_not_for(tmp_path):
    pipeline = tiny_sdxl()
    with pytest.raises(ValueError, match="StableDiffusionXLPipeline cannot be trained"):
        text_to_image_objective(pipeline, encode_prompts(pipeline, TEXTS), train_method="text_encoder")
    half = tiny_sd()
    prompts = encode_prompts(half, TEXTS)
    half.text_encoder.half()
    with pytest.raises(ValueError, match="text encoder is float16"):
        text_to_image_objective(half, prompts, train_method="text_encoder")
    objective = objective_of(tiny_sd())
    parts = split_by_label(latents(objective.prompts), 1)
    with pytest.raises(ValueError, match="uce edits the UNet"):
        UnlearnTrainer(copy.deepcopy(objective), config(tmp_path), METHODS["uce"](), *parts)
    from hf_unlearn import add_lora

    with pytest.raises(ValueError, match="adapters are for the UNet"):
        add_lora(objective, choose_lora(objective, *parts, "all"))
