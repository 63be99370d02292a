"""Learnt vectors: the loss, the loop and the way into the text encoder, against hand-written ones."""

import pytest
import torch
from attack_cases import changed_sd, check_repeatable, subject
from conftest import tiny_sd, tiny_sdxl
from diffusers import DDPMScheduler

from hf_unlearn.attacks.inversion import Inversion
from hf_unlearn.attacks.pictures import frozen
from hf_unlearn.attacks.soft_prefix import SoftPrefix
from hf_unlearn.attacks.vectors import (
    PromptLoss,
    draw_with,
    encode_with,
    learn_vectors,
    places,
    random_vectors,
    template_of,
)
from hf_unlearn.families.latents import posterior_mean

PROMPTS = ["a photo of a cat", "cat"]


@pytest.fixture(scope="module")
def model():
    return changed_sd()


def by_hand(pipeline, prompts, vectors):
    """Embeddings of prompts with vectors at positions 1, 2, ...: a table that is one row longer for each vector."""
    table = pipeline.text_encoder.get_input_embeddings()
    options = dict(padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    ids = pipeline.tokenizer(prompts, **options).input_ids
    size = len(table.weight)
    ids[:, 1 : 1 + len(vectors)] = torch.arange(size, size + len(vectors))
    grown = torch.cat([table.weight.detach(), vectors])
    rows = torch.nn.functional.embedding(ids, grown)
    handle = table.register_forward_hook(lambda module, inputs, output: rows)
    try:
        return pipeline.text_encoder(ids.clamp(max=size - 1))[0]
    finally:
        handle.remove()


def test_vectors_stand_where_the_places_are(model):
    vectors = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    prompts = [places(3, prompt) for prompt in PROMPTS]
    embeds, pooled = encode_with(model, prompts, [vectors])
    torch.testing.assert_close(embeds, by_hand(model, prompts, vectors), rtol=0, atol=1e-6)
    assert pooled is None
    assert (encode_with(model, prompts, [-vectors])[0] - embeds).abs().amax((0, 2))[1:4].min() > 1e-4


def test_the_embeddings_of_a_word_in_its_place_are_the_word(model):
    ids = model.tokenizer("c a").input_ids[1:-1]
    table = model.text_encoder.get_input_embeddings().weight.detach()
    embeds, _ = encode_with(model, [places(2, "t")], [table[ids]])
    plain = model.encode_prompt(["c a t"], model.device, 1, False)[0]
    torch.testing.assert_close(embeds, plain, rtol=0, atol=1e-6)


def test_each_encoder_of_sdxl_has_vectors_and_a_gradient():
    pipeline = tiny_sdxl()
    vectors = [v.requires_grad_() for v in random_vectors(pipeline, 2, torch.Generator().manual_seed(0))]
    embeds, pooled = encode_with(pipeline, [places(2, "a cat")], vectors)
    assert embeds.shape == (1, 77, 32) and pooled.shape == (1, 16)
    (embeds.square().mean() + pooled.square().mean()).backward()
    assert all(v.grad.abs().min() > 0 for v in vectors)


def test_prompts_without_enough_places_are_refused(model):
    with pytest.raises(ValueError, match="2 vectors have no place in 'x cat'"):
        encode_with(model, ["x cat"], [torch.zeros(2, 16)])


@pytest.mark.parametrize("attack", [SoftPrefix(tokens=2, steps=4, batch_size=2), Inversion(steps=4, batch_size=2)])
def test_learning_is_adam_on_the_denoising_loss(model, attack):
    """Ten lines: Adam on ‖ε - ε_θ(√ᾱ x + √(1-ᾱ) ε, t, c(v))‖² from the same draws."""
    own = subject(model, tiny_sd())
    count = attack.tokens
    prompts = [
        places(count, p) if isinstance(attack, SoftPrefix) else places(count) for p in ["a cat", "dog", "a cat"]
    ]
    found = learn_vectors(own, prompts, count, attack.steps, attack.rate, attack.batch_size, seed=3)

    generator = torch.Generator().manual_seed(3)
    with frozen(model):
        loss = PromptLoss(own, prompts, attack.batch_size, generator)
        vectors = random_vectors(model, count, generator)[0].requires_grad_()
        spread = model.text_encoder.get_input_embeddings().weight.std().item()
        optimizer = torch.optim.Adam([vectors], lr=attack.rate * spread)
        alphas = DDPMScheduler.from_config(model.scheduler.config).alphas_cumprod
        with torch.no_grad():
            latents = posterior_mean(model.vae, own.target.images)
        for _ in range(attack.steps):
            chosen, batch = loss.draw()
            x, noise, t = latents[chosen], batch["noise"], batch["timesteps"]
            a = alphas[t].view(-1, 1, 1, 1)
            c = by_hand(model, [prompts[i] for i in chosen], vectors)
            predicted = model.unet(a.sqrt() * x + (1 - a).sqrt() * noise, t, encoder_hidden_states=c).sample
            optimizer.zero_grad()
            (predicted - noise).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(found[0], vectors.detach(), rtol=0, atol=1e-6)
    assert (found[0] - random_vectors(model, count, torch.Generator().manual_seed(3))[0]).abs().max() > 1e-3


def test_images_of_vectors_are_those_of_the_stock_pipeline(model):
    own = subject(model, tiny_sd())
    ids = model.tokenizer("c a").input_ids[1:-1]
    vectors = [model.text_encoder.get_input_embeddings().weight.detach()[ids]]
    drawn = draw_with(own, [places(2, "t")] * 3, vectors, seed=1)
    generators = [torch.Generator().manual_seed(7_010_000 + i) for i in range(3)]
    plain = model(["c a t"] * 3, num_inference_steps=3, guidance_scale=2.0, generator=generators, output_type="pt")
    torch.testing.assert_close(drawn, plain.images * 2 - 1, rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
@pytest.mark.parametrize("attack", [SoftPrefix(tokens=2, steps=2), Inversion(steps=2), Inversion(tokens=3, steps=2)])
def test_an_attack_is_repeatable_and_leaves_the_model(make, attack):
    check_repeatable(attack, make)


def test_the_name_gives_way_to_the_word():
    assert template_of("a noto emoji of a Rocket, big", "rocket") == "a noto emoji of a {}, big"
    assert template_of("an artwork", "rocket") == "a photo of {}"


def test_attacks_without_pictures_are_refused(model):
    from dataclasses import replace

    own = subject(model, model)
    own = replace(own, target=replace(own.target, images=torch.zeros(0, 3, 16, 16)))
    for attack in (SoftPrefix(), Inversion()):
        with pytest.raises(ValueError, match="there is no picture of 'a cat'"):
            attack.attack(own, 0)


def test_budgets_and_names():
    assert Inversion().metric == "recovered_inversion" and Inversion(tokens=4).metric == "recovered_inversion_4"
    assert SoftPrefix().budget.startswith("4 vectors learnt in 200 steps on 20 pictures")
    assert SoftPrefix().quick().steps < SoftPrefix().steps
    with pytest.raises(ValueError, match="tokens must be at least 1"):
        SoftPrefix(tokens=0)
