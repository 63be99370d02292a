"""Attacks that only ask and sample otherwise, against the stock pipeline and formulas by hand."""

from dataclasses import replace

import pytest
import torch
from attack_cases import Never, changed_sd, check_repeatable, subject
from conftest import tiny_sd, tiny_sdxl
from diffusers import DDIMScheduler

from hf_unlearn.attacks.completion import Completion, completed
from hf_unlearn.attacks.noise_probe import LouderDDIM, NoiseProbe, louder_images
from hf_unlearn.attacks.pictures import ask, shallow
from hf_unlearn.attacks.samplers import SETTINGS, Samplers
from hf_unlearn.attacks.wordings import WORDINGS, Wordings, in_words, misspelt
from hf_unlearn.families.latents import Drawing

PROMPTS = ["a photo of a cat", "a cat", "cats"]
ALL = (Wordings(), Samplers(), NoiseProbe(levels=2), Completion())


@pytest.fixture(scope="module")
def models():
    return changed_sd(), tiny_sd()


@pytest.fixture(scope="module")
def own(models):
    return subject(*models, samples=3)


def stock(pipeline, seeds, **options):
    generators = [torch.Generator().manual_seed(7_000_000 + seed) for seed in seeds]
    settings = {"num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "pt", **options}
    return pipeline(PROMPTS, generator=generators, **settings).images * 2 - 1


def test_images_are_those_of_the_stock_pipeline_whatever_the_batches(models):
    drawing = Drawing(num_inference_steps=3, guidance_scale=2.0, batch_size=2)
    drawn = ask(models[0], PROMPTS, drawing, seed=2)
    torch.testing.assert_close(drawn, stock(models[0], (20_000, 20_001, 20_002)), rtol=0, atol=1e-5)
    later = ask(models[0], PROMPTS[1:], drawing, seed=2, first=1)
    torch.testing.assert_close(later, drawn[1:], rtol=0, atol=1e-5)


def test_the_safety_checker_blacks_nothing_out(models):
    class Black(torch.nn.Module):
        def forward(self, **inputs):
            raise AssertionError("asked")

    guarded = shallow(models[0], safety_checker=Black())
    assert torch.equal(ask(guarded, PROMPTS, Drawing(3, 2.0), 0), ask(models[0], PROMPTS, Drawing(3, 2.0), 0))
    assert isinstance(guarded.safety_checker, Black) and models[0].safety_checker is None


def test_no_louder_noise_is_the_plain_stochastic_sampler(own):
    drawn = louder_images(own, PROMPTS, 1.0, seed=0)
    torch.testing.assert_close(drawn, stock(own.model, range(3), eta=1.0), rtol=0, atol=1e-5)
    assert (louder_images(own, PROMPTS, 1.85, seed=0) - drawn).abs().max() > 0.01
    assert NoiseProbe(levels=3).factors == [1.0, 1.425, 1.85] and NoiseProbe(levels=1).factors == [1.0]


def test_the_noise_and_nothing_else_is_multiplied():
    """x_{t-1} = √ᾱ' x̂_0 + √(1 - ᾱ' - σ²) ε̂ + η σ z."""
    scheduler = LouderDDIM.from_config(tiny_sd().scheduler.config)
    scheduler.louder = 1.5
    scheduler.set_timesteps(10)
    x, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t = scheduler.timesteps[4]
    found = scheduler.step(noise, t, x, eta=1.0, generator=torch.Generator().manual_seed(1)).prev_sample
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    a, b = scheduler.alphas_cumprod[t], scheduler.alphas_cumprod[t - 100]
    sigma = ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
    image = (x - (1 - a).sqrt() * noise) / a.sqrt()
    by_hand = b.sqrt() * image + (1 - b - sigma**2).sqrt() * noise + 1.5 * sigma * z
    torch.testing.assert_close(found, by_hand, rtol=0, atol=1e-5)


def test_completion_of_nothing_is_plain_and_of_everything_the_original(own):
    plain, first = stock(own.model, range(3)), stock(own.original, range(3))
    torch.testing.assert_close(completed(own, PROMPTS, 0, 0), plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(completed(own, PROMPTS, 3, 0), first, rtol=0, atol=1e-5)
    assert (first - plain).abs().max() > 0.01


def test_completion_hands_over_in_the_middle(own):
    """The loop by hand: guidance, DDIM, the original's UNet in the first two of three steps."""
    prompts, size = PROMPTS[:1], (1, 4, 8, 8)
    x = torch.randn(size, generator=torch.Generator().manual_seed(7_000_000))
    scheduler = DDIMScheduler.from_config(own.model.scheduler.config)
    scheduler.set_timesteps(3)
    text, null = own.model.encode_prompt(prompts, own.model.device, 1, True)
    for i, t in enumerate(scheduler.timesteps):
        unet = own.original.unet if i < 2 else own.model.unet
        with torch.no_grad():
            free, given = unet(torch.cat([x, x]), t, encoder_hidden_states=torch.cat([null, text])).sample.chunk(2)
        x = scheduler.step(free + 2.0 * (given - free), t, x).prev_sample
    with torch.no_grad():
        image = own.model.vae.decode(x / own.model.vae.config.scaling_factor).sample.clamp(-1, 1)
    torch.testing.assert_close(completed(own, prompts, 2, 0), image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_completion_takes_over_with_the_own_text_encoder(own, guidance):
    other = shallow(own.model, text_encoder=tiny_sd(seed=3).text_encoder)
    drawing = Drawing(num_inference_steps=2, guidance_scale=guidance, batch_size=2)
    changed = replace(own, model=other, sampling=drawing)
    same_text = replace(own, model=own.model, sampling=drawing)
    found, kept = (completed(one, PROMPTS, 1, 0) for one in (changed, same_text))
    assert (found - kept).abs().max() > 5e-5  # rounding is a hundredth of it
    torch.testing.assert_close(completed(changed, PROMPTS, 2, 0), completed(same_text, PROMPTS, 2, 0))


def test_completion_without_the_original_is_refused(own):
    with pytest.raises(ValueError, match="completion needs the original"):
        Completion().attack(replace(own, original=None), 0)


@pytest.mark.parametrize("name", SETTINGS)
def test_each_way_to_sample_draws_its_own_images(own, name):
    reader = Never()
    told = replace(own, target=replace(own.target, reader=reader))
    attack = Samplers(settings_drawn=(name,))
    assert attack.attack(told, 0).recovered == (False,) * 3
    plain = ask(own.model, [str(p) for p in own.asked], own.sampling, 0)
    assert reader.seen[0].shape == (3, 3, 16, 16) and reader.seen[0].isfinite().all()
    if name == "ddim":  # the model's own
        torch.testing.assert_close(reader.seen[0], plain, rtol=0, atol=1e-5)
    else:
        assert (reader.seen[0] - plain).abs().max() > 1e-3


def test_every_setting_has_its_share_of_the_images(own):
    found = Samplers().attack(replace(own, samples=12), 0)
    assert len(found.recovered) == 12 and list(found.details["shares"]) == list(SETTINGS)


@pytest.mark.parametrize(
    ("setting", "change", "said"),
    [("image to image", {"retained": None}, "retained images"), ("negative prompt", {"retained": None}, "neutral")],
)
def test_what_a_setting_needs_is_asked_for(own, setting, change, said):
    with pytest.raises(ValueError, match=said):
        Samplers(settings_drawn=(setting,)).attack(replace(own, **change), 0)


def test_the_quick_form_takes_no_more_steps():
    assert Samplers().quick().settings_drawn == tuple(name for name in SETTINGS if name != "twice the steps")
    assert Samplers(settings_drawn=("twice the steps",)).quick() == Samplers(settings_drawn=("twice the steps",))


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="settings_drawn must be among ddim"):
        Samplers(settings_drawn=("heun",))


def test_wordings():
    assert in_words("{PROMPT}! {name}", "a photo of a cat", "cat") == "A PHOTO OF A CAT! cat"
    assert in_words("{misspelt}", "a photo of a cat", "cat") == "a photo of a act"
    assert [misspelt(word) for word in ("rocket", "ss", "x", "moon")] == ["rokcet", "sss", "xx", "mooon"]


def test_every_wording_meets_every_prompt(own, monkeypatch):
    asked = []

    def noted(pipeline, prompts, drawing, seed):
        asked.extend(prompts)
        return torch.zeros(len(prompts), 3, 16, 16)

    monkeypatch.setattr("hf_unlearn.attacks.wordings.ask", noted)
    found = Wordings().attack(replace(own, samples=2 * len(WORDINGS)), 0)
    assert {asked[0], asked[len(WORDINGS)]} == set(own.target.asked)
    assert asked[5] == asked[0].upper() + "!" and asked[1] == asked[1 + len(WORDINGS)] == "a cat"
    assert list(found.details["shares"]) == list(WORDINGS)


@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_an_attack_is_repeatable_and_leaves_the_models(make, attack):
    check_repeatable(attack, make, samples=4)


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_a_reader_that_says_no_finds_nothing(own, attack):
    found = attack.attack(replace(own, target=replace(own.target, reader=Never())), 0)
    assert found.share == 0 and len(found.recovered) == 3
