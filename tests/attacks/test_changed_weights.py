"""Attacks that change weights or train: merging, rounding, noise, fine-tuning."""

from dataclasses import replace

import pytest
import torch
from attack_cases import Brighter, Never, changed_sd, check_repeatable, state_of, subject
from conftest import same, tiny_sd, tiny_sdxl

from hf_unlearn.attacks.benign_relapse import BenignRelapse
from hf_unlearn.attacks.fine_tuning import fine_tune
from hf_unlearn.attacks.merge_back import MergeBack, merged
from hf_unlearn.attacks.pictures import frozen, latents_of_images
from hf_unlearn.attacks.quantised import Quantised, quantised, rounded
from hf_unlearn.attacks.relearning import Relearning
from hf_unlearn.attacks.weight_noise import WeightNoise, shaken
from hf_unlearn.families import TextToImage, encode_prompts


@pytest.fixture(scope="module")
def models():
    return changed_sd(), tiny_sd()


@pytest.fixture(scope="module")
def own(models):
    return subject(*models, samples=3)


def test_merging_nothing_and_everything_is_exact(models):
    ours, original = models
    assert same(state_of(merged(ours, original, 0.0)), state_of(ours))
    assert same(state_of(merged(ours, original, 1.0)), state_of(original))
    halves = state_of(merged(ours, original, 0.5))
    first, second = state_of(ours), state_of(original)
    for name, value in halves.items():
        torch.testing.assert_close(value, (first[name] + second[name]) / 2)


def test_merging_takes_the_text_encoder_too():
    ours, original = tiny_sd(seed=1), tiny_sd(seed=0)
    found = merged(ours, original, 1.0).text_encoder.state_dict()
    assert same(found, original.text_encoder.state_dict())


def test_merging_other_weights_is_refused(models):
    other = tiny_sd()
    other.unet.extra = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="merge adapters before merging back"):
        merged(other, models[1], 0.5)


@pytest.mark.parametrize("bits", [8, 4])
def test_rounding_is_within_half_a_level(bits):
    weight = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * torch.arange(5).view(5, 1, 1, 1)
    found = rounded(weight, bits)
    level = weight.abs().flatten(1).amax(1).view(5, 1, 1, 1) / (2 ** (bits - 1) - 1)
    assert ((found - weight).abs() <= level / 2 * (1 + 1e-5)).all()
    assert all(len(row.unique()) <= 2**bits - 1 for row in found)
    assert (found - weight).abs().max() > level.max() / 4


def test_rounding_leaves_vectors_and_rounds_every_matrix(models):
    before, after = state_of(models[0]), state_of(quantised(models[0], 4))
    trained = {n for n in before if not n.startswith("vae.")}
    for name in trained:
        assert torch.equal(before[name], after[name]) == (before[name].dim() < 2 or not before[name].any()), name
    with pytest.raises(ValueError, match="bits must be 8 or 4"):
        Quantised(bits=3)


def test_noise_has_the_size_of_the_weights(models):
    before, after = models[0].unet.state_dict(), shaken(models[0], 0.1, seed=4).unet.state_dict()
    name = max(before, key=lambda n: before[n].numel())
    moved = (after[name] - before[name]).std() / before[name].std()
    assert abs(moved.item() - 0.1) < 0.02
    assert same(before, shaken(models[0], 0.0, seed=4).unet.state_dict())


def test_fine_tuning_stops_where_it_is_told(own):
    asked = []

    def stop(pipeline, step):
        asked.append((step, pipeline.unet.training))
        return step == 2

    pipeline, stopped = fine_tune(own, own.target, 5, 1e-3, 3, 0, stop=stop)
    assert stopped and asked == [(1, False), (2, False)]
    assert not same(pipeline.unet.state_dict(), own.model.unet.state_dict())
    assert pipeline.text_encoder is own.model.text_encoder


def test_fine_tuning_lowers_the_loss(own):
    def loss(pipeline):
        with frozen(pipeline), torch.no_grad():
            texts = own.target.prompts_of_images
            objective = TextToImage(pipeline, encode_prompts(pipeline, texts))
            batch = {"pixel_values": latents_of_images(pipeline, own.target.images)}
            batch["labels"] = torch.tensor([objective.prompts.number(text) for text in texts])
            draws = objective.draw(batch, torch.Generator().manual_seed(0))
            return objective(**{**batch, **objective.forget_draw(draws)}).mean().item()

    for weights in ("full", "lora"):
        tuned, _ = fine_tune(own, own.target, 40, 1e-3, 3, 0, weights)
        assert loss(tuned) < 0.9 * loss(own.model), weights


class After(Never):
    """Says yes from the n-th call on."""

    def __init__(self, calls: int):
        self.calls, self.name, self.seen = calls, f"from the {calls}th call on", []

    def __call__(self, images):
        self.seen.append(images)
        return torch.full((len(images),), len(self.seen) >= self.calls)


@pytest.mark.parametrize(("calls", "steps", "reached"), [(1, 0, True), (2, 2, True), (3, 4, True), (9, 6, False)])
def test_relearning_counts_the_steps_until_the_reader_says_yes(own, calls, steps, reached):
    told = replace(own, target=replace(own.target, reader=After(calls)))
    found = Relearning(first=2, steps=6).attack(told, 0)
    assert (found.steps, found.reached) == (steps, reached)
    assert list(found.details["shares"]) == [str(step) for step in (0, 2, 4, 6) if step <= steps]
    assert Relearning(first=5, steps=40).asked_after == [5, 10, 20, 40]


def test_relearning_by_an_adapter_and_what_it_is_called(own):
    told = replace(own, target=replace(own.target, reader=After(2)))
    assert Relearning(weights="lora", first=1, steps=2).attack(told, 0).steps == 1
    assert Relearning().metric == "relearning_steps" and Relearning(weights="lora").metric == "relearning_steps_lora"


def test_a_benign_relapse_needs_what_stayed(own):
    with pytest.raises(ValueError, match="retained images"):
        BenignRelapse().attack(replace(own, retained=None), 0)


@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
@pytest.mark.parametrize(
    "attack",
    [
        MergeBack(),
        Quantised(),
        WeightNoise(),
        BenignRelapse(steps=2),
        Relearning(first=1, steps=2),
        Relearning(weights="lora", first=1, steps=2),
    ],
    ids=lambda attack: attack.metric,
)
def test_an_attack_is_repeatable_and_leaves_the_models(make, attack):
    check_repeatable(attack, make, reader=Brighter(2.0), samples=2)
