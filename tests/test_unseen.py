"""What a classifier would say of samples that it never saw, and how far a model has come on its way there."""

import logging
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import config, random_images, same, tiny_vit, weights
from families import family_case, tiny_resnet
from torch.nn.modules.batchnorm import _BatchNorm

from hf_unlearn import Classification, SFRon, UnlearnTrainer, split_by_index, split_by_label
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.data.pairs import collate
from hf_unlearn.families.classifier.unseen import LEAST, distances, levels, target_of, unseen_of
from hf_unlearn.training.progress import Probe

FORGOTTEN = [0, 2, 3, 5, 9]  # samples of classes that are retained


def holdout(count: int = 8) -> ArrayDataset:
    generator = torch.Generator().manual_seed(5)
    return ArrayDataset(torch.rand(count, 1, 8, 8, generator=generator) * 2 - 1, torch.arange(count) % 4)


def losses(model, data) -> list[float]:
    batch = collate([data[i] for i in range(len(data))])
    with torch.no_grad():
        logits = model.eval()(pixel_values=batch["pixel_values"]).logits
    return F.cross_entropy(logits, batch["labels"], reduction="none").tolist()


def trainer_of(folder, method=None, model=None, samples=True, given=None, **values) -> UnlearnTrainer:
    images = random_images()
    sets = split_by_index(images, FORGOTTEN) if samples else split_by_label(images, 1)
    args = config(folder, **{"learning_rate": None, "max_steps": 2, **values})
    return UnlearnTrainer(model or tiny_vit(), args, method or SFRon(), *sets, holdout_dataset=given)


# ---- levels ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [3, 5, 8])
def test_the_hardest_sample_gets_the_loss_of_the_hardest_unseen_one_and_none_less_than_its_own(count):
    """By rank, (r + 1/2) / F of the way through the held-out losses, whatever the two sets' sizes are."""
    objective, images = Classification(tiny_vit()), random_images()
    forget, retain = split_by_index(images, FORGOTTEN)
    found = levels(objective, unseen_of(4, forget, retain, holdout(count)), forget).tolist()
    ours, theirs = losses(tiny_vit(), forget), sorted(losses(tiny_vit(), holdout(count)))
    order = sorted(range(5), key=lambda i: ours[i])
    wanted = [max(ours[i], theirs[int((order.index(i) + 0.5) * count / 5)]) for i in range(5)]
    assert found == pytest.approx(wanted, abs=1e-6)
    assert all(level >= own - 1e-6 for level, own in zip(found, ours))
    assert found[order[-1]] == pytest.approx(max(theirs[-1], max(ours)), abs=1e-6)
    assert any(level > own + 1e-3 for level, own in zip(found, ours))


def test_samples_of_a_class_that_goes_have_no_level():
    """Class 1 goes whole, and with it two samples of classes that stay: these alone are ranked."""
    objective, images = Classification(tiny_vit()), random_images()
    forget, retain = split_by_index(images, [0, *range(1, 20, 4), 2])
    unseen = unseen_of(4, forget, retain, holdout())
    assert unseen.lost.tolist() == [False, True, False, False] and unseen.samples and unseen.known
    found = levels(objective, unseen, forget)
    label = torch.tensor([int(item["labels"]) for item in forget])
    assert (found.isinf() == (label == 1)).all() and found.isinf().sum() == 5
    alone = split_by_index(images, [0, 2])[0]
    assert found[label != 1].tolist() == pytest.approx(levels(objective, unseen, alone).tolist())
    with pytest.raises(ValueError, match="samples of retained classes need held-out samples: pass holdout_dataset"):
        levels(objective, unseen_of(4, forget, retain, None), forget)


def test_what_is_known_of_the_end():
    images = random_images()
    by_class, by_sample = split_by_label(images, 1), split_by_index(images, FORGOTTEN)
    assert unseen_of(4, *by_class, None).known and not unseen_of(4, *by_class, None).samples
    assert not unseen_of(4, *by_sample, None).known and unseen_of(4, *by_sample, holdout()).known
    assert unseen_of(4, by_class[0], None, holdout()) is None
    nothing_stays = ArrayDataset(images.pixel_values, torch.full((20,), 9))
    assert not unseen_of(4, by_class[0], nothing_stays, None).known


# ---- targets -----------------------------------------------------------------------------------------
def logits(count: int = 6, classes: int = 5, seed: int = 2) -> torch.Tensor:
    return 3 * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))


def test_a_class_that_goes_has_no_probability_and_the_rest_keep_their_ratios():
    images = random_images()
    forget, retain = split_by_label(images, [1, 3])
    unseen = unseen_of(4, forget, retain, None)
    original, label = logits(classes=4), torch.tensor([1, 3, 1, 3, 1, 3])
    target, whole = target_of(unseen, label, original, torch.full((6,), torch.inf))
    wanted = original.softmax(1) * torch.tensor([1.0, 0.0, 1.0, 0.0])
    wanted = wanted / wanted.sum(1, keepdim=True)
    assert (target.softmax(1) - wanted).abs().max() <= 1e-6
    assert target.softmax(1)[:, [1, 3]].max() <= math.exp(LEAST) * (1 + 1e-6)
    kl = torch.where(wanted > 0, wanted * (wanted.log() - original.log_softmax(1)), 0.0).sum(1)
    assert whole.tolist() == pytest.approx(kl.tolist(), abs=1e-6)


def test_a_sample_has_the_probability_of_its_level_and_the_rest_keep_their_ratios():
    images = random_images()
    unseen = unseen_of(5, *split_by_index(images, FORGOTTEN), holdout())
    unseen.lost[:] = False
    original, label = logits(), torch.tensor([0, 1, 2, 3, 4, 0])
    level = torch.tensor([0.1, 0.5, 1.0, 2.0, 5.0, 12.0])
    target, whole = target_of(unseen, label, original, level)
    p = target.exp()
    assert p.sum(1).tolist() == pytest.approx([1.0] * 6, abs=1e-6)
    own = F.one_hot(label, 5).bool()
    assert p[own].tolist() == pytest.approx((-level).exp().tolist(), rel=1e-5)
    rest, was = (x.masked_fill(own, 0.0) for x in (p, original.softmax(1)))
    assert (rest / rest.sum(1, keepdim=True) - was / was.sum(1, keepdim=True)).abs().max() <= 1e-6
    objective = Classification(tiny_vit())
    objective.network.forward = lambda pixel_values: type("Out", (), {"logits": original})()
    objective.unseen = unseen
    as_the_loss = objective(pixel_values=torch.zeros(6, 1, 8, 8), labels=label, target=target, as_unseen=True)
    assert whole.tolist() == pytest.approx(as_the_loss.tolist(), rel=1e-5) and (whole > 0).all()


def test_samples_are_compared_by_log_odds_and_classes_that_go_by_divergence():
    """½ (log odds - log odds)², by hand; where no class stays, retained ones go by divergence."""
    images = random_images()
    unseen = unseen_of(5, *split_by_index(images, FORGOTTEN), holdout())
    unseen.lost[:] = torch.tensor([False, True, False, False, True])
    ours, theirs, label = logits(), logits(seed=3), torch.tensor([0, 1, 2, 3, 4, 0])
    found = distances(unseen, ours, theirs, label)
    p, q = ours.softmax(1), theirs.softmax(1)
    divergence = (q * (q.log() - p.log())).sum(1)
    for i, y in enumerate(label.tolist()):
        apart = 0.5 * (odds(p[i, y].item()) - odds(q[i, y].item())) ** 2
        wanted = divergence[i].item() if y in (1, 4) else apart
        assert found[i].item() == pytest.approx(wanted, rel=1e-4)
    unseen.samples = False
    assert distances(unseen, ours, theirs, label).tolist() == pytest.approx(divergence.tolist(), rel=1e-4)


def test_a_saturated_sample_still_has_a_gradient():
    """Its loss is 0.0005 and should be 0.005: the gradient of a divergence is all but gone there."""
    unseen = unseen_of(5, *split_by_index(random_images(), FORGOTTEN), holdout())
    unseen.lost[:] = False
    ours = torch.tensor([[9.0, 0, 0, 0, 0]], requires_grad=True)
    target = torch.tensor([[6.7, 0, 0, 0, 0]])
    sizes = []
    for samples in (True, False):
        unseen.samples = samples
        (gradient,) = torch.autograd.grad(distances(unseen, ours, target, torch.tensor([0])).sum(), ours)
        sizes.append(gradient.abs().max().item())
    assert sizes[0] > 1 and sizes[1] < 0.01


def test_only_the_unseen_loss_goes_without_a_mask_unless_one_is_asked_for(tmp_path):
    def masks(method, **values):
        trainer = trainer_of(tmp_path, method, samples=False, **values)
        trainer.train()
        return trainer.step.method.use_mask, trainer.reference.masks is not None

    assert masks(SFRon()) == (False, False)
    assert masks(SFRon(use_mask=True)) == (True, True)
    assert masks(SFRon(), learning_rate=1e-3) == (True, True)
    assert masks(SFRon(forget_loss="match")) == (True, True)
    assert SFRon(use_mask=False, forget_loss="match").use_mask is False


def test_where_one_class_alone_stays_its_samples_can_be_of_no_other():
    """Nothing is left to share the rest of the probability: the target is a distribution all the same."""
    unseen = unseen_of(2, *split_by_index(ArrayDataset(torch.rand(6, 1), torch.zeros(6).long()), [0]), holdout())
    assert unseen.lost.tolist() == [False, True]
    target, whole = target_of(unseen, torch.tensor([0, 1]), logits(2, 2), torch.tensor([1.0, torch.inf]))
    assert target.softmax(1)[:, 0].tolist() == pytest.approx([1.0, 1.0])
    assert whole.tolist() == pytest.approx(F.softplus(logits(2, 2)[:, 1] - logits(2, 2)[:, 0]).tolist(), rel=1e-5)


# ---- trainers ----------------------------------------------------------------------------------------
@pytest.fixture
def warned(caplog):
    """The warnings so far."""
    caplog.set_level(logging.WARNING, "hf_unlearn")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "hf_unlearn.training.checks"]


def test_samples_without_unseen_ones_take_the_rate_and_one_line_says_so(tmp_path, warned):
    trainer = trainer_of(tmp_path)
    (line,) = warned()
    assert "\n" not in line and line.endswith(
        "takes the learning rate 0.0005: pass holdout_dataset (--validation_data_dir)"
    )
    assert trainer.step.strength is None and trainer.step.method.forget_loss == "ascent"
    trainer.train()
    assert same(weights(trainer), weights_after(trainer_of(tmp_path, learning_rate=5e-4)))
    assert len(warned()) == 1


def weights_after(trainer) -> dict[str, torch.Tensor]:
    trainer.train()
    return weights(trainer)


@pytest.mark.parametrize(
    ("method", "values"),
    [
        (SFRon(), {"given": holdout()}),
        (SFRon(), {"samples": False}),
        (SFRon(), {"learning_rate": 1e-3}),
        (SFRon(strength="rate"), {}),
        (SFRon(forget_loss="ascent", bound="none"), {}),
        (SFRon(forget_loss="match"), {}),
    ],
    ids=["held out", "class", "rate", "said", "no end asked for", "match"],
)
def test_nobody_is_warned_who_lacks_nothing(tmp_path, warned, method, values):
    trainer_of(tmp_path, method, **values)
    assert not warned()


def test_as_if_never_seen_is_refused_where_that_is_not_known(tmp_path):
    with pytest.raises(ValueError, match="forget_loss='unseen' is for classifiers"):
        objective, *sets = family_case("unet")
        UnlearnTrainer(objective, config(tmp_path), SFRon(forget_loss="unseen"), *sets)
    with pytest.raises(ValueError, match="forget_loss='unseen' needs .*: pass holdout_dataset"):
        trainer_of(tmp_path, SFRon(forget_loss="unseen"))
    trainer_of(tmp_path, SFRon(forget_loss="unseen"), given=holdout())
    trainer_of(tmp_path, SFRon(forget_loss="unseen"), samples=False)


def test_images_held_out_are_checked_as_the_others_are(tmp_path):
    wrong = ArrayDataset(torch.rand(4, 3, 8, 8), torch.arange(4))
    with pytest.raises(ValueError, match="channels"):
        trainer_of(tmp_path, given=wrong)


def test_training_as_if_never_seen_leaves_batch_statistics_and_dropout_alone(tmp_path):
    model = tiny_resnet()
    start = {n: v.clone() for n, v in model.state_dict().items()}
    trainer = trainer_of(tmp_path, SFRon(), model, samples=False)
    seen = []
    trainer.objective.register_forward_pre_hook(lambda module, args: seen.append(module.network.training))
    trainer.train()
    found, statistics = weights(trainer), [n for n in start if "running" in n or "tracked" in n]
    assert statistics and all(torch.equal(found[n], start[n]) for n in statistics)
    assert not all(torch.equal(found[n], start[n]) for n in start) and seen and not any(seen)
    assert not any(m.training for m in trainer.objective.modules() if isinstance(m, _BatchNorm))
    again = trainer_of(tmp_path, SFRon(), model, samples=False, learning_rate=1e-3)
    again.train()
    assert not all(torch.equal(weights(again)[n], found[n]) for n in statistics)  # at a rate they move


# ---- progress ----------------------------------------------------------------------------------------
def moved(objective) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in objective.network.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))


@pytest.mark.parametrize("samples", [False, True], ids=["class", "samples"])
def test_the_progress_of_a_classifier(tmp_path, samples):
    trainer = trainer_of(tmp_path, samples=samples, given=holdout() if samples else None)
    objective, forget, retain = trainer.objective, trainer.forget_dataset, trainer.retain_dataset
    ends = objective.unseen_levels(forget)
    probe = Probe(objective, trainer.step.draws, forget, retain, ends)
    still = probe.measure()
    assert still.value == 0 and still.drift == 0 and still.parts == [0] and still.draws == 5
    before, kept = losses(tiny_vit(), forget), outputs(tiny_vit(), retain)
    moved(objective)
    found, after = probe.measure(), losses(objective.network, forget)
    if samples:
        was, end, new = (torch.tensor([odds(math.exp(-x)) for x in xs]) for xs in (before, ends.tolist(), after))
        wanted = (((new - was) * (end - was)).sum() / (end - was).square().sum()).item()
        unit = ((end - was).square().mean() / 2).item()
    else:
        p, q = (sum(math.exp(-x) for x in xs) for xs in (before, after))
        wanted, unit = 1 - q / p, sum(-math.log(1 - math.exp(-x)) for x in before) / 5
        assert unseen_distance(forget) == pytest.approx(unit, rel=1e-5)
    assert found.value == pytest.approx(wanted, rel=1e-3) and found.value == min(found.parts)
    now = outputs(objective.network, retain)
    far = (kept.exp() * (kept - now)).sum(1)
    if samples:
        labels = [int(retain[i]["labels"]) for i in range(len(retain))]
        p, q = ([odds(row[y].exp().item()) for row, y in zip(x, labels)] for x in (kept, now))
        far = torch.tensor([(a - b) ** 2 / 2 for a, b in zip(p, q)])
    assert found.drift == pytest.approx(far.mean().item() / unit, rel=1e-3)
    assert found.drift > 0 and found.off_axis is None


def odds(p: float) -> float:
    return math.log(p / (1 - p))


def outputs(model, data) -> torch.Tensor:
    """(N, classes) log probabilities."""
    with torch.no_grad():
        pixels = torch.stack([data[i]["pixel_values"] for i in range(len(data))])
        return model.eval()(pixel_values=pixels).logits.log_softmax(1)


def unseen_distance(forget) -> float:
    """Mean KL(as if never seen || the original) of samples of class 1, which goes."""
    was = outputs(tiny_vit(), forget)
    rest = was[:, [0, 2, 3]].log_softmax(1)
    return (rest.exp() * (rest - was[:, [0, 2, 3]])).sum(1).mean().item()


def test_a_classifier_that_says_what_it_would_of_unseen_samples_has_come_all_the_way(tmp_path):
    trainer = trainer_of(tmp_path, samples=False)
    probe = Probe(trainer.objective, trainer.step.draws, trainer.forget_dataset, trainer.retain_dataset)
    trainer.objective.network.classifier.bias.data[1] -= 1000
    assert probe.measure().value == pytest.approx(1.0)


def test_the_progress_of_a_model_without_conditions(tmp_path, unconditional):
    """The rise of the loss over the original's, in each quarter of the schedule; the least counts."""
    trainer = UnlearnTrainer(unconditional, config(tmp_path), SFRon(), *split_by_label(random_images(), 1))
    objective, scheduler = trainer.objective, unconditional.scheduler
    probe = Probe(objective, trainer.step.draws, trainer.forget_dataset, trainer.retain_dataset)

    def predicted(batches):
        found = []
        for b in batches:
            noisy = scheduler.add_noise(b["pixel_values"], b["noise"], b["timesteps"])
            with torch.no_grad():
                found.append(unconditional.unet(noisy, b["timesteps"]).sample)
        return torch.cat(found)

    noise, timesteps = (torch.cat([b[name] for b in probe.forget]) for name in ("noise", "timesteps"))
    before, kept = predicted(probe.forget), predicted(probe.retain)
    moved(objective)
    after, now = predicted(probe.forget), predicted(probe.retain)
    old, new = ((p - noise).square().sum((1, 2, 3)) for p in (before, after))
    quarters = [timesteps // 250 == i for i in range(4)]
    wanted = [((new - old)[q].sum() / old[q].sum()).item() for q in quarters]
    found = probe.measure()
    assert found.draws == 64 == len(noise) and all(q.any() for q in quarters)
    assert found.parts == pytest.approx(wanted, rel=1e-4) and found.value == min(found.parts)
    drift = (now - kept).square().sum((1, 2, 3)).mean() / old.mean()
    assert found.drift == pytest.approx(drift.item(), rel=1e-4) and found.off_axis is None
