"""Stable Diffusion and SDXL as an objective: losses by hand, what is trained, what is saved."""

import subprocess
import sys

import pytest
import torch
from conftest import config, latents, tiny_sd, tiny_sdxl

from hf_unlearn import METHODS, TextToImage, UnlearnTrainer, encode_prompts, split_by_label
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline
from hf_unlearn.families.text_to_image.objective import trained_names
from hf_unlearn.methods import Batch

TEXTS = ["a photo of a church", "a photo of a house", "a dog"]
ANCHORS = {TEXTS[0]: TEXTS[1]}
FAMILIES = {"sd": tiny_sd, "sdxl": tiny_sdxl}


def objective_of(pipeline, **options) -> TextToImage:
    return TextToImage(pipeline, encode_prompts(pipeline, TEXTS), ANCHORS, **options)


def batch_of(objective, count=3):
    data = latents(objective.prompts)
    batch = {"pixel_values": data.pixel_values[:count], "labels": data.label_tensor[:count]}
    return {**batch, **objective.draw(batch, torch.Generator().manual_seed(0))}


def by_hand(pipeline, batch, texts, unet=None):
    """(B, C, H, W) predictions with the pipeline's own text encoding, one sample at a time."""
    unet, out = unet or pipeline.unet, []
    noisy = pipeline.scheduler.add_noise(batch["pixel_values"], batch["noise"], batch["timesteps"])
    for x, t, text in zip(noisy, batch["timesteps"], texts):
        encoded = pipeline.encode_prompt(
            text, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        added = {}
        if len(encoded) == 4:
            time_ids = torch.tensor([[16, 16, 0, 0, 16, 16]])
            added = {"added_cond_kwargs": {"text_embeds": encoded[2], "time_ids": time_ids}}
        out.append(unet(x[None], t, encoder_hidden_states=encoded[0], **added).sample)
    return torch.cat(out)


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_by_hand(family):
    """With label dropout: a dropped prompt is the empty one."""
    pipeline = FAMILIES[family]()
    objective = objective_of(pipeline, label_dropout=0.5).eval()
    batch = batch_of(objective)
    assert batch["drop_labels"].any() and not batch["drop_labels"].all()
    texts = ["" if d else objective.prompts.texts[i] for i, d in zip(batch["labels"], batch["drop_labels"])]
    with torch.no_grad():
        expected = (by_hand(pipeline, batch, texts) - batch["noise"]).pow(2).mean((1, 2, 3))
        assert torch.allclose(objective(**batch), expected, atol=1e-5)


def test_v_prediction_matches_the_scheduler():
    pipeline = tiny_sd(prediction_type="v_prediction")
    objective = objective_of(pipeline, label_dropout=0.0).eval()
    batch = batch_of(objective)
    texts = [objective.prompts.texts[i] for i in batch["labels"]]
    velocity = pipeline.scheduler.get_velocity(batch["pixel_values"], batch["noise"], batch["timesteps"])
    with torch.no_grad():
        expected = (by_hand(pipeline, batch, texts) - velocity).pow(2).mean((1, 2, 3))
        assert torch.allclose(objective(**batch), expected, atol=1e-5)


def test_matching_the_anchor_and_negative_guidance_by_hand(tmp_path):
    pipeline = tiny_sd()
    objective = objective_of(pipeline, label_dropout=0.0).eval()
    batch = batch_of(objective)
    objective.choose_anchors({1}, 3, 0)
    assert batch["labels"].tolist() == [1, 2, 3] and objective.anchors == {1: 2, 2: 0, 3: 0}
    with torch.no_grad():
        own, anchor, null = (by_hand(pipeline, batch, texts) for texts in (TEXTS, [TEXTS[1], "", ""], [""] * 3))
        method = METHODS["esd"](negative_guidance=2.0)
        trainer = UnlearnTrainer(objective, config(tmp_path), method, latents(objective.prompts))
        objective.anchors, trainer.reference.original = {1: 2, 2: 0, 3: 0}, pipeline.unet
        matched = trainer.step.losses(batch, target=trainer.step.anchor(batch))
        assert torch.allclose(matched, (own - anchor).pow(2).mean((1, 2, 3)), atol=1e-6)
        away = method.loss(trainer.step, Batch(forget=batch)).forget
        assert away.item() == pytest.approx((own - (null - 2 * (own - null))).pow(2).mean().item(), abs=1e-6)


@pytest.mark.parametrize(
    ("train_method", "inside", "outside"),
    [
        ("xattn", "attn2.to_k", "attn1.to_k"),
        ("selfattn", "attn1.to_k", "attn2.to_k"),
        ("noxattn", "attn1.to_k", "attn2.to_k"),
        ("noxattn", "conv_in", "conv_out"),
        ("noxattn", "resnets", "time_embedding"),
        ("full", "attn2.to_k", None),
    ],
)
def test_train_method_names(train_method, inside, outside):
    unet = tiny_sd().unet
    names = trained_names(unet, train_method)
    assert any(inside in n for n in names) and not (outside and any(outside in n for n in names))
    if train_method == "full":
        assert names == {n for n, _ in unet.named_parameters()}


@pytest.mark.parametrize("method", ["sfron", "esd", "concept_ablation", "selective_amnesia", "salun", "uce"])
def test_only_the_chosen_weights_move_and_all_else_stays(tmp_path, method):
    pipeline, start = tiny_sd(), tiny_sd()
    objective = objective_of(pipeline, train_method="xattn")
    parts = split_by_label(latents(objective.prompts), 1)
    options = {"sfron": {"fisher_batch_size": 4}}.get(method, {})
    UnlearnTrainer(objective, config(tmp_path, max_steps=2), METHODS[method](**options), *parts).train()
    moved = {n for n, p in pipeline.unet.named_parameters() if not torch.equal(p, start.unet.get_parameter(n))}
    assert moved and all("attn2" in n for n in moved)
    for part in ("vae", "text_encoder"):
        ours, theirs = getattr(pipeline, part).state_dict(), getattr(start, part).state_dict()
        assert all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_the_frozen_original_shares_what_is_not_trained(tmp_path):
    """xattn: the copy costs the trained weights only."""
    pipeline = tiny_sd()
    objective = objective_of(pipeline, train_method="xattn")
    trainer = UnlearnTrainer(
        objective, config(tmp_path, max_steps=1), METHODS["esd"](), *split_by_label(latents(objective.prompts), 1)
    )
    trainer.train()
    live, frozen = dict(pipeline.unet.named_parameters()), dict(trainer.reference.original.named_parameters())
    shared = {n for n in live if live[n].data_ptr() == frozen[n].data_ptr()}
    assert shared == {n for n in live if "attn2" not in n} and not any(p.requires_grad for p in frozen.values())


def test_uce_by_hand(tmp_path):
    """One weight against the formula with explicit sums; the concept's key becomes the anchor's as λ and p vanish."""
    pipeline, start = tiny_sd(), tiny_sd()
    objective = objective_of(pipeline)
    parts = split_by_label(latents(objective.prompts), 1)
    UnlearnTrainer(objective, config(tmp_path), METHODS["uce"](stay_weight=0.3, preserve_weight=0.7), *parts).train()
    embeds, last = objective.prompts.embeds.double(), objective.prompts.last
    assert objective.prompts.texts[1:] == TEXTS and last[1] == len("aphotoofachurch") and last[0] == 1
    c, anchor = embeds[1, last[1]], embeds[2, last[2]]
    for name, p in start.unet.named_parameters():
        if "attn2.to_k" in name:
            w = p.detach().double()
            left = torch.outer(w @ anchor, c) + 0.3 * w
            right = torch.outer(c, c) + 0.3 * torch.eye(16).double()
            for r in (embeds[2, last[2]], embeds[3, last[3]]):
                left += 0.7 * torch.outer(w @ r, r)
                right += 0.7 * torch.outer(r, r)
            assert torch.allclose(pipeline.unet.get_parameter(name).double(), left @ right.inverse(), atol=1e-5)
    after = tiny_sd()
    UnlearnTrainer(
        TextToImage(after, objective.prompts, ANCHORS), config(tmp_path), METHODS["uce"](tokens="after"), *parts
    ).train()
    count = embeds.shape[1] - max(last)
    assert count > 1
    name, p = next((n, p.detach().double()) for n, p in start.unet.named_parameters() if "attn2.to_v" in n)
    left, right = 0.5 * p, 0.5 * torch.eye(16).double()
    for k in range(count):
        left += torch.outer(p @ embeds[2, last[2] + k], embeds[1, last[1] + k])
        right += torch.outer(embeds[1, last[1] + k], embeds[1, last[1] + k])
        for r in (embeds[2, last[2] + k], embeds[3, last[3] + k]):
            left += torch.outer(p @ r, r)
            right += torch.outer(r, r)
    assert torch.allclose(after.unet.get_parameter(name).double(), left @ right.inverse(), atol=1e-5)
    sharp = tiny_sd()
    again = TextToImage(sharp, objective.prompts, ANCHORS)
    weights = dict(stay_weight=1e-4, preserve_weight=0.0)
    UnlearnTrainer(again, config(tmp_path), METHODS["uce"](**weights), *parts).train()
    key = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    edited, before = (u.get_parameter(key).double() for u in (sharp.unet, start.unet))
    assert torch.allclose(edited @ c, before @ anchor, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_pipeline_gives_the_same_pixels_without_this_package(tmp_path, family):
    pipeline = FAMILIES[family]()
    objective = objective_of(pipeline)
    parts = split_by_label(latents(objective.prompts), 1)
    trainer = UnlearnTrainer(objective, config(tmp_path / "run", max_steps=2), METHODS["esd"](), *parts)
    trainer.train()
    trainer.save_model(str(tmp_path / "out"))
    draw = dict(num_inference_steps=2, height=16, width=16, output_type="np")
    here = pipeline("a dog", generator=torch.manual_seed(3), **draw).images
    name = type(pipeline).__name__
    code = f"""
import sys, numpy, torch
sys.modules["hf_unlearn"] = None
from diffusers import {name}
torch.set_num_threads(1)
pipeline = {name}.from_pretrained(sys.argv[1])
images = pipeline("a dog", generator=torch.manual_seed(3), num_inference_steps=2, height=16, width=16,
                  output_type="np").images
numpy.save(sys.argv[2], images)
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "out", tmp_path / "x.npy"], check=True, capture_output=True)
    import numpy

    assert numpy.array_equal(numpy.load(tmp_path / "x.npy"), here)


def test_bad_input_is_one_line(tmp_path):
    pipeline = tiny_sd()
    prompts = encode_prompts(pipeline, TEXTS)
    for make, message in (
        (lambda: TextToImage(pipeline.unet, prompts), "UNet2DConditionModel is not supported: give a StableDiff"),
        (lambda: TextToImage(pipeline, prompts, train_method="all"), "train_method must be one of full, xattn"),
        (lambda: TextToImage(pipeline, prompts, {"a dog": "a dog"}), "'a dog' is its own anchor"),
        (lambda: TextToImage(pipeline, prompts, {"a cat": "a dog"}), "'a cat' was not encoded"),
        (lambda: UnlearnTrainer(pipeline, config(tmp_path)), "which prompts"),
        (lambda: TextToImage(tiny_sd().to(torch.float16), prompts), "float16, which cannot be trained: load float32"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_half_precision_files_are_loaded_in_one_precision(tmp_path):
    """As published pipelines store them; transformers and diffusers disagree on what to make of them."""
    tiny_sd().to(torch.float16).save_pretrained(tmp_path)
    pipeline = load_text_to_image_pipeline(str(tmp_path))
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    assert {p.dtype for part in parts for p in part.parameters()} == {torch.float32}
    assert pipeline("a dog", num_inference_steps=1, output_type="np").images.shape == (1, 16, 16, 3)
