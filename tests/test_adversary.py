"""The adversary of a forget step: who has one, what it shifts, and that it is away where nobody asks for it."""

import pytest
import torch
from conftest import config, random_images, tiny_pipeline, tiny_vit
from families import family_case

from hf_unlearn import Classification, NoisePrediction, SFRon, UnlearnTrainer, split_by_label
from hf_unlearn.training.adversary import LIFE, POOL, Adversary


def made(folder, method=None, **values):
    """A trainer on the tiny DDPM, without a learning rate unless one is given."""
    args = config(folder, **{"learning_rate": None, "max_steps": 3, **values})
    return UnlearnTrainer(tiny_pipeline(), args, method or SFRon(), *split_by_label(random_images(), 1))


def batch_of(trainer, size=5):
    items = [trainer.forget_dataset[i % len(trainer.forget_dataset)] for i in range(size)]
    stacked = {
        "pixel_values": torch.stack([item["pixel_values"] for item in items]),
        "labels": torch.tensor([int(item["labels"]) for item in items]),
    }
    return trainer.step.draws.add(stacked, torch.Generator().manual_seed(0), forget=True)


@pytest.mark.parametrize(
    ("method", "rate", "has"),
    [
        (SFRon(), None, True),
        (SFRon(), 1e-4, False),  # as published
        (SFRon(adversary=True), 1e-4, True),
        (SFRon(adversary=False), None, False),
        (SFRon(forget_loss="ascent"), None, False),
        (SFRon(preset="paper"), None, False),
    ],
)
def test_who_has_one(tmp_path, method, rate, has):
    if method.preset == "paper":
        rate = 1e-4
    trainer = made(tmp_path, method, learning_rate=rate)
    assert (trainer.step.adversary is not None) == has == bool(trainer.step.method.adversary)
    assert trainer.step.method.batch_gradients == 1 + method.retain_steps + has


def test_what_cannot_have_one_is_refused(tmp_path):
    sets = split_by_label(random_images(), 1)
    for objective, method in (
        (NoisePrediction(tiny_pipeline()), SFRon(adversary=True, forget_loss="ascent")),
        (Classification(tiny_vit()), SFRon(adversary=True)),
    ):
        with pytest.raises(ValueError, match="adversary is for matching under labels that the network embeds"):
            UnlearnTrainer(objective, config(tmp_path), method, *sets)


@pytest.mark.parametrize("family", ["unet", "dit", "sd", "sdxl", "text_encoder"])
def test_every_condition_is_shifted(tmp_path, family):
    """A shift of 0 changes nothing, another one changes the samples that it is for, and nothing stays behind."""
    objective, *sets = family_case(family)
    trainer = UnlearnTrainer(objective, config(tmp_path, learning_rate=None, max_steps=2), SFRon(), *sets)
    objective.eval()
    batch, rows = batch_of(trainer, 4), objective.conditions
    with torch.no_grad():
        plain = objective(**{k: v for k, v in batch.items() if k != "index"})
        none = [torch.zeros(4, *row.shape[1:]) for row in rows]
        some = [torch.cat([torch.zeros_like(z[:2]), torch.ones_like(z[2:])]) for z in none]
        for shifts, same in ((none, [True] * 4), (some, [True, True, False, False])):
            with objective.shifted(shifts):
                found = objective(**{k: v for k, v in batch.items() if k != "index"})
            assert [torch.equal(a, b) for a, b in zip(found, plain)] == same
        assert torch.equal(objective(**{k: v for k, v in batch.items() if k != "index"}), plain)
    trainer.train()
    assert trainer.step.adversary.turns == 2


def test_it_finds_what_still_draws_the_samples(tmp_path):
    """Its loss falls on the samples that it learns on, and each shift begins anew at the end of its life."""
    trainer = made(tmp_path)
    adversary, batch = Adversary(trainer.objective, trainer.args, trainer.step.draws), batch_of(trainer, 8)
    trainer.objective.eval()
    odd = {name: value[1::2] for name, value in batch.items()}

    def loss(shifts):
        with torch.no_grad():
            return trainer.step.losses(odd, under=shifts).mean().item()

    first = [loss(adversary.learn(trainer.step, batch)[2]) for _ in range(POOL)]
    last = [loss(adversary.learn(trainer.step, batch)[2]) for _ in range(POOL * (LIFE - 1))][-POOL:]
    assert max(last) < min(first)
    rows, counts, (shift,) = adversary.learn(trainer.step, batch)
    assert rows == slice(1, None, 2) and counts.tolist() == [True] * 4 and shift.any()
    started = adversary.draws.generator("profile", 500_000 + POOL * LIFE)
    expected = 0.5 * adversary.spreads[0] * torch.randn(adversary.shifts[0][0].shape, generator=started)
    assert (adversary.shifts[0][0] - expected).abs().max() <= 0.25 * adversary.spreads[0] * 1.01


@pytest.mark.parametrize("family", ["unet", "dit", "sd"])
def test_a_batch_of_one_meets_it_too(tmp_path, family, monkeypatch):
    """The loss holds both, the distance that the strength follows is that of the sample as it is asked for."""
    objective, *sets = family_case(family)
    args = config(tmp_path, learning_rate=None, max_steps=4, per_device_train_batch_size=1)
    trainer, seen = UnlearnTrainer(objective, args, SFRon(), *sets), []
    stock = trainer.step.fast_step

    def watched(loss, forget, **options):
        if forget:
            seen.append((loss.item(), options["above"][0].item()))
        stock(loss, forget, **options)

    monkeypatch.setattr(trainer.step, "fast_step", watched)
    trainer.train()
    assert trainer.step.adversary.turns == 4
    assert all(loss != pytest.approx(above, rel=1e-4) for loss, above in seen)
    assert all(p.isfinite().all() for p in objective.network.parameters())


def test_its_state_is_read_back(tmp_path):
    trainer = made(tmp_path)
    one, other = (Adversary(trainer.objective, trainer.args, trainer.step.draws) for _ in range(2))
    batch = batch_of(trainer)
    for _ in range(3):
        one.learn(trainer.step, batch)
    other.load_state_dict(one.state_dict())
    assert other.turns == 3 and all(torch.equal(other.shifts[k][0], one.shifts[k][0]) for k in (0, 1))
    assert torch.equal(one.learn(trainer.step, batch)[2][0], other.learn(trainer.step, batch)[2][0])
    one.restart()
    assert one.turns == 0 and not one.shifts


def test_activation_checkpointing_changes_nothing(tmp_path):
    found = []
    for on in (False, True):
        objective, *sets = family_case("dit")
        args = config(tmp_path / str(on), learning_rate=None, max_steps=2, activation_checkpointing=on)
        UnlearnTrainer(objective, args, SFRon(), *sets).train()
        found.append(torch.cat([p.detach().flatten() for p in objective.network.parameters()]))
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)
