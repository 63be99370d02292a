import pytest
import torch
from conftest import tiny_pipeline

from hf_unlearn import NoisePrediction
from hf_unlearn.data.pairs import collate


def batch_of(objective, images, count=6, seed=0, forget=False):
    batch = collate([images[i] for i in range(count)])
    draws = objective.draw(batch, torch.Generator().manual_seed(seed))
    return {**batch, **(objective.forget_draw(draws) if forget else draws)}


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_losses_are_the_schedulers_own_targets(images, kind):
    pipeline = tiny_pipeline(prediction_type=kind)
    objective = NoisePrediction(pipeline, label_dropout=0.5).eval()
    batch = batch_of(objective, images)
    x, noise, t = batch["pixel_values"], batch["noise"], batch["timesteps"]
    labels = torch.where(batch["drop_labels"], 4, batch["labels"])
    noisy = pipeline.scheduler.add_noise(x, noise, t)
    target = {"epsilon": noise, "sample": x}.get(kind)
    if target is None:
        target = pipeline.scheduler.get_velocity(x, noise, t)
    expected = ((pipeline.unet(noisy, t, class_labels=labels).sample - target) ** 2).mean((1, 2, 3))
    assert torch.allclose(objective(**batch), expected, atol=1e-6) and batch["drop_labels"].any()


def test_unconditional_pipelines_have_no_labels(unconditional, images):
    objective = NoisePrediction(unconditional).eval()
    batch = batch_of(objective, images)
    assert "drop_labels" not in batch and not objective.conditional
    noisy = unconditional.scheduler.add_noise(batch["pixel_values"], batch["noise"], batch["timesteps"])
    expected = ((unconditional.unet(noisy, batch["timesteps"]).sample - batch["noise"]) ** 2).mean((1, 2, 3))
    assert torch.allclose(objective(**batch), expected, atol=1e-6)


@pytest.mark.parametrize("antithetic", [False, True])
def test_two_ranks_draw_the_two_halves_of_one(pipeline, images, antithetic):
    objective = NoisePrediction(pipeline, antithetic=antithetic, label_dropout=0.5)
    whole = collate([images[i] for i in range(8)])
    half = collate([images[i] for i in range(4)])
    one = objective.draw(whole, torch.Generator().manual_seed(5))
    parts = [objective.draw(half, torch.Generator().manual_seed(5), rank, 2) for rank in (0, 1)]
    for name, value in one.items():
        assert torch.equal(value, torch.cat([part[name] for part in parts])), name


def test_antithetic_timesteps_pair_up(pipeline, images):
    t = batch_of(NoisePrediction(pipeline, antithetic=True), images)["timesteps"]
    assert (t[:3] + t[3:] == 999).all()


def test_forget_samples_keep_their_labels(pipeline, images):
    """Released code drops 10 % of the labels in the ascent, which hits the null class that all classes share."""
    objective = NoisePrediction(pipeline, label_dropout=1.0)
    assert batch_of(objective, images)["drop_labels"].all()
    assert not batch_of(objective, images, forget=True)["drop_labels"].any()
    as_released = NoisePrediction(pipeline, label_dropout=1.0, forget_label_dropout=True)
    assert batch_of(as_released, images, forget=True)["drop_labels"].all()


def test_the_prediction_under_another_label_is_a_target(pipeline, images):
    objective = NoisePrediction(pipeline).eval()
    batch = batch_of(objective, images, forget=True)
    objective.anchors = {0: 2, 1: 3, 2: 3, 3: 0}
    anchors = objective.other_labels(batch)
    assert anchors.tolist() == [2, 3, 3, 0, 2, 3]  # labels 0 1 2 3 0 1
    noisy = pipeline.scheduler.add_noise(batch["pixel_values"], batch["noise"], batch["timesteps"])
    own, other = (
        pipeline.unet(noisy, batch["timesteps"], class_labels=labels).sample for labels in (batch["labels"], anchors)
    )
    target = objective(**{**batch, "labels": anchors}, predict=True)
    assert torch.allclose(target, other, atol=1e-7)
    assert torch.allclose(objective(**batch, target=target), ((own - other) ** 2).mean((1, 2, 3)), atol=1e-7)
    same = objective(**batch, target=objective(**batch, predict=True))
    assert same.max() == 0 and objective(**batch, target=target).min() > 0


def test_a_target_replaces_the_noise(pipeline, images):
    objective = NoisePrediction(pipeline, label_dropout=0.5).eval()
    batch = batch_of(objective, images)
    own = objective.predict(pipeline.unet, batch)
    assert objective(**batch, target=own).max() == 0
    target = torch.zeros_like(own)
    assert torch.allclose(objective(**batch, target=target), own.pow(2).mean((1, 2, 3)), atol=1e-7)


def test_anchors_are_the_next_retained_labels(pipeline):
    objective = NoisePrediction(pipeline)
    objective.choose_anchors({1, 2}, 6, 0)
    assert objective.anchors == {0: 3, 1: 3, 2: 3, 3: 0}
    objective.choose_anchors({3}, 6, 0)
    assert objective.anchors == {0: 1, 1: 2, 2: 0, 3: 0}
    objective.choose_anchors({0, 1, 3}, 6, 0)
    assert objective.anchors[0] == objective.anchors[1] == objective.anchors[3] == 2
    objective.choose_anchors({0, 1, 2, 3}, 6, 0)
    with pytest.raises(ValueError, match="none to match"):
        objective.other_labels({"labels": torch.tensor([0])})


def test_baseline_is_the_mean_by_timestep_bin(pipeline, images):
    objective = NoisePrediction(pipeline, timestep_bins=2).eval()
    batch = batch_of(objective, images, count=20, forget=True)
    objective.choose_anchors(set(), 6, 0)
    table = objective.baseline_losses([batch])
    own = objective(**batch)
    early = batch["timesteps"] < 500
    assert torch.allclose(table[0], torch.stack([own[early].mean(), own[~early].mean()]), atol=1e-6)
    other = objective(**{**batch, "labels": (batch["labels"] + 1) % 4})
    assert torch.allclose(table[1], torch.stack([other[early].mean(), other[~early].mean()]), atol=1e-6)
    rows = objective.baseline(table, batch)
    assert torch.equal(rows.own, table[0][(~early).long()])


def test_only_the_denoiser_is_registered(pipeline):
    names = {name.split(".")[0] for name, _ in NoisePrediction(pipeline).named_parameters()}
    assert names == {"network"} and set(NoisePrediction(pipeline).state_dict()) == {
        f"network.{n}" for n in pipeline.unet.state_dict()
    }


def test_check_says_what_does_not_fit(pipeline, images):
    objective = NoisePrediction(pipeline)
    objective.check(images[0], images.labels)
    for shape, labels, message in (
        ((3, 8, 8), [0], "3 channels but the model takes 1"),
        ((1, 9, 8), [0], "9x8 but the model takes 8x8"),
        ((1, 8, 8), None, "no labels"),
        ((1, 8, 8), [0, 4], r"labels \[4\] are out of range: the model has 4 classes"),
    ):
        with pytest.raises(ValueError, match=message):
            objective.check({"pixel_values": torch.zeros(shape)}, labels)
    with pytest.raises(ValueError, match="null_class 7"):
        NoisePrediction(pipeline, null_class=7)
