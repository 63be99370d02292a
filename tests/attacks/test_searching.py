"""Attacks that search: tokens by gradient, tokens by the text encoder alone, noise by inversion."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from attack_cases import Never, changed_sd, check_repeatable, subject
from conftest import tiny_sd, tiny_sdxl
from diffusers import DDIMScheduler

from hf_unlearn.attacks.discrete import DiscretePrefix, exchange_scores, ordinary_tokens, vectors_of
from hf_unlearn.attacks.pictures import frozen, latents_of_images, shallow
from hf_unlearn.attacks.ring_a_bell import RingABell
from hf_unlearn.attacks.tina import Tina, _noisier
from hf_unlearn.attacks.vectors import PromptLoss, encode_with, places

SHORT = (
    DiscretePrefix(tokens=2, steps=2, candidates=2, best=4),
    RingABell(tokens=3, generations=2, population=4),
    Tina(timesteps=3, steps=2),
)


@pytest.fixture(scope="module")
def own():
    return subject(changed_sd(), tiny_sd(), samples=3)


def test_special_tokens_are_no_candidates(own):
    usable = ordinary_tokens(own.model)
    assert len(usable) == 512 and not {512, 513} & set(usable.tolist())


def test_scores_are_the_first_order_gain_of_an_exchange(own):
    """-<g, E_w>, up to what the token that is there gives: against the loss along the way to the other token."""
    with frozen(own.model):
        loss = PromptLoss(own, [places(2, "a cat")] * 3, 3, torch.Generator().manual_seed(0))
        drawn, ids = loss.draw(), torch.tensor([70, 80])
        vectors = [v.double().float().requires_grad_() for v in vectors_of(own.model, ids)]
        scores = exchange_scores(own.model, torch.autograd.grad(loss(vectors, drawn), vectors))
        table = own.model.text_encoder.get_input_embeddings().weight.detach()
        moved, step = vectors[0].detach().clone(), 1e-2
        way = table[200] - table[80]
        with torch.no_grad():
            ahead, behind = (loss([moved + s * step * torch.stack([0 * way, way])], drawn) for s in (1, -1))
    slope = ((ahead - behind) / (2 * step)).item()
    gain = (scores[1, 200] - scores[1, 80]).item()
    assert gain == pytest.approx(-slope, rel=0.05, abs=1e-6)


def test_an_exchange_is_kept_only_if_it_lowers_the_loss(own, monkeypatch):
    """On one mini-batch that is the same in every step the loss falls with the steps."""
    with frozen(own.model):
        losses = []
        for steps in (1, 6):
            loss = PromptLoss(own, [places(3, "a cat")] * 3, 3, torch.Generator().manual_seed(0))
            drawn = loss.draw()
            monkeypatch.setattr(loss, "draw", partial(tuple, drawn))
            attack = DiscretePrefix(tokens=3, steps=steps, candidates=8)
            ids = attack._search(loss, own.model, torch.Generator().manual_seed(1))
            with torch.no_grad():
                losses.append(loss(vectors_of(own.model, ids), drawn).item())
            start = ordinary_tokens(own.model)[torch.randint(512, (3,), generator=torch.Generator().manual_seed(1))]
            with torch.no_grad():
                first = loss(vectors_of(own.model, start), drawn).item()
    assert losses[1] < losses[0] < first


def test_the_aim_of_ring_a_bell(own):
    """f(P) + η mean_k [f(with) - f(without)], by hand."""
    model, attack = own.model, RingABell(strength=2.0, stand_in="it")

    def f(text):
        return model.encode_prompt([text], model.device, 1, False)[0].flatten()

    with torch.no_grad():
        difference = (f("a photo of a cat") - f("a photo of it") + f("a cat, detailed") - f("it, detailed")) / 2
        torch.testing.assert_close(attack.aim(own, 0), f("a photo of it") + 2 * difference, rtol=0, atol=1e-5)
        torch.testing.assert_close(attack.aim(own, 3), f("it, detailed") + 2 * difference, rtol=0, atol=1e-5)


def test_the_search_comes_nearer_with_every_generation(own):
    def distance(generations):
        attack = RingABell(tokens=4, generations=generations, population=16)
        with torch.no_grad():
            ids = attack._search(own, torch.Generator().manual_seed(0))
            number = int(torch.randint(2, (), generator=torch.Generator().manual_seed(0)))
            embeds, _ = encode_with(own.model, [places(4)], vectors_of(own.model, ids))
            return (embeds.flatten() - attack.aim(own, number)).square().sum().item()

    assert distance(60) < distance(5) < distance(1) * (1 + 1e-9)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_inversion_leads_back_to_the_picture(kind):
    """Sampled by the stock pipeline without text, the noise that was found gives the picture again."""
    pipeline = tiny_sd(prediction_type=kind)
    pipeline = shallow(pipeline, scheduler=DDIMScheduler.from_config(pipeline.scheduler.config))
    own = subject(pipeline, pipeline)
    with frozen(pipeline):
        latents = latents_of_images(pipeline, own.target.images)
        errors = []
        for steps in (0, 40):
            noise = Tina(timesteps=4, steps=steps, rate=3e-2).inverted(pipeline, own, latents)
            options = dict(num_inference_steps=4, guidance_scale=1.0, output_type="latent")
            back = pipeline([""] * 3, latents=noise, **options).images
            errors.append((back - latents).square().mean().item())
    assert errors[1] < 0.7 * errors[0]


def test_the_start_of_the_inversion_is_a_ddim_step_backwards():
    scheduler = DDIMScheduler.from_config(tiny_sd().scheduler.config)
    scheduler.set_timesteps(5)
    x, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        later = _noisier(scheduler, noise, t, x)
        torch.testing.assert_close(scheduler.step(noise, t, later).prev_sample, x, rtol=0, atol=1e-4)


def test_tina_reads_the_pictures_that_it_inverts(own):
    reader = Never()
    found = Tina(timesteps=2, steps=1).attack(replace(own, target=replace(own.target, reader=reader)), 0)
    assert found.recovered == (False,) * 3 and reader.seen[0].shape == (3, 3, 16, 16)
    with pytest.raises(ValueError, match="no picture of 'a cat' to invert"):
        Tina().attack(replace(own, target=replace(own.target, images=torch.zeros(0, 3, 16, 16))), 0)


@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
@pytest.mark.parametrize("attack", SHORT, ids=lambda attack: attack.name)
def test_an_attack_is_repeatable_and_leaves_the_model(make, attack):
    check_repeatable(attack, make)
