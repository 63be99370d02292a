"""Data to learn beside data to forget: what CLU is without either, what a run is refused, what resumes."""

from dataclasses import replace

import pytest
import torch
from conftest import config, random_images, same, tiny_pipeline, tiny_vit, weights
from families import family_case

from hf_unlearn import CLU, METHODS, FineTune, NegGradPlus, SFRon, UnlearnTrainer, fisher
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.data.pairs import ForgetRetainDataset, subset
from hf_unlearn.families import NoisePrediction
from hf_unlearn.methods.clu import LearnOnly
from hf_unlearn.saliency.balance import balanced_masks
from hf_unlearn.saliency.masks import Masks

FAMILIES = ("unet", "dit", "sd", "vit", "resnet")


def three(family="vit"):
    """(objective, forget, retain, learn): a third of what is retained elsewhere is to be learnt."""
    objective, forget, rest = family_case(family)
    learn = [i for i in range(len(rest)) if i % 3 == 0]
    return objective, forget, subset(rest, [i for i in range(len(rest)) if i % 3]), subset(rest, learn)


def run(folder, method, family="vit", forgets=True, learns=True, resume=None, masks=None, **values):
    objective, forget, retain, learn = three(family)
    values = {"save_strategy": "no", "adam_epsilon": 1e-4, **values}
    trainer = UnlearnTrainer(
        objective,
        config(folder, **values),
        method,
        forget if forgets else None,
        retain,
        masks,
        learn_dataset=learn if learns else None,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("rate", [None, 1e-3], ids=["found", "rate"])
@pytest.mark.parametrize("family", ["unet", "vit", "sd"])
def test_with_nothing_to_learn_it_is_sfron(tmp_path, family, rate):
    options = dict(retain_steps=1, forget_max_norm=0.5)
    ours = run(tmp_path / "a", CLU(**options), family, learns=False, learning_rate=rate)
    theirs = run(tmp_path / "b", SFRon(**options), family, learns=False, learning_rate=rate)
    assert same(weights(ours), weights(theirs)) and (ours.step.strength is not None) == (rate is None)
    assert ours.method.name == "clu" and type(ours.step.method) is SFRon


@pytest.mark.parametrize("preset", ["paper", "reference"])
def test_a_preset_holds_for_each_part(preset):
    for names, kind in (({"learn", "forget", "retain"}, CLU), ({"learn", "retain"}, LearnOnly), ({"forget"}, None)):
        if kind is None:
            made = CLU(preset=preset, retain_steps=7).for_data({"forget", "retain"})
            assert made == SFRon(preset=preset, retain_steps=7)
        else:
            made = CLU(preset=preset, retain_steps=7).for_data(names)
            assert type(made) is kind and made.retain_steps == 7 and made.slow_rate == SFRon(preset=preset).slow_rate


@pytest.mark.parametrize("forgets", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns(tmp_path, family, forgets):
    """The learn loss falls, at a rate that its few steps need; masked-out weights stay in the masked steps."""
    values = dict(max_steps=12, learning_rate=3e-3, logging_steps=1, verify_mask_steps=1)
    trainer = run(tmp_path, CLU(use_mask=True, forget_alpha=0.2), family, forgets, **values)
    losses = [row["learn_loss"] for row in trainer.state.log_history if "learn_loss" in row]
    assert len(losses) == 12 and sum(losses[-4:]) < sum(losses[:4])
    assert trainer.verify_mask() == 0 and 0 < trainer.masks.density < 1
    assert ("forget_loss" in trainer.state.log_history[0]) == forgets
    trainer.save_model()  # loads what it wrote


OPTIONS = {
    "use_mask": False,
    "mask_balance": False,
    "retain_steps": 1,
    "slow_rate": 0.5,
    "repair_weight": 0.0,
    "learn_exponent": 0.0,
    "learn_max_norm": 1e-3,
    "learn_optim": "shared",
    "learn_learning_rate": 1e-2,
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_part_can_be_left_out(tmp_path, option):
    usual = run(tmp_path / "a", CLU(use_mask=True), max_steps=2)
    other = run(tmp_path / "b", replace(CLU(use_mask=True), **{option: OPTIONS[option]}), max_steps=2)
    assert not same(weights(usual), weights(other))


def test_masks_of_ones_are_no_masks(tmp_path):
    ones = Masks({n: torch.ones_like(p, dtype=torch.bool) for n, p in tiny_vit().named_parameters()})
    masked, free = run(tmp_path, CLU(use_mask=True), masks=ones), run(tmp_path, CLU(use_mask=False))
    assert same(weights(masked), weights(free)) and free.masks is None


def test_the_balanced_mask_of_three_sets():
    objective, *sets = three()
    named = dict(zip(("forget", "retain", "learn"), sets))
    forget, retain, learn = (fisher(objective, part, name != "retain")[0] for name, part in named.items())
    sums = [sum(f.double().sum().item() for f in part.values()) for part in (retain, learn)]
    found = balanced_masks(objective, named, 0.5, "sample")
    share = sums[0] / sums[1]
    assert float(found.metadata["balance"]) == pytest.approx(share) and share != 1
    plain = balanced_masks(objective, named, 0.5, "sample", balance=False)
    alone = balanced_masks(objective, {**named, "forget": None}, 0.5, "sample")
    for name in learn:
        every = (
            (found, forget[name] + share * learn[name]),
            (plain, forget[name] + learn[name]),
            (alone, share * learn[name]),
        )
        for masks, changed in every:
            assert torch.equal(masks.tensors[name], (changed >= 0.5 * retain[name]) & (changed > 1e-15)), name
    assert found.density != plain.density != alone.density


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("forgets", [True, False])
@pytest.mark.parametrize("rate", [None, 1e-3], ids=["found", "rate"])
def test_resumed_equals_straight(tmp_path, forgets, rate, workers):
    """Step 3 of 7 is in the middle of an epoch; three Adams, slow weights and both controllers go on."""
    method = CLU(slow_rate=0.5)
    values = dict(max_steps=7, save_strategy="steps", save_steps=3, learning_rate=rate)
    straight = run(tmp_path / "a", method, forgets=forgets, **values)
    resumed = run(
        tmp_path / "b",
        method,
        forgets=forgets,
        resume=str(tmp_path / "a/checkpoint-3"),
        dataloader_num_workers=workers,
        **values,
    )
    assert same(weights(straight), weights(resumed))
    assert [s.state_dict() for s in straight.step.stateful] == [s.state_dict() for s in resumed.step.stateful]
    assert len(resumed.step.stateful) == (0 if rate else 1 + forgets)


def test_another_learn_set_does_not_resume(tmp_path):
    values = dict(save_strategy="steps", save_steps=2)
    run(tmp_path, CLU(), **values)
    objective, forget, retain, learn = three()
    other = UnlearnTrainer(
        objective, config(tmp_path, **values), CLU(), forget, retain, learn_dataset=subset(learn, [0, 1])
    )
    with pytest.raises(ValueError, match="checkpoint-2 was written with data .*'learn'"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_both_controllers_fade_together_and_the_rate_is_the_larger(tmp_path):
    trainer = run(tmp_path, CLU(), max_steps=9, learning_rate=None, logging_steps=1)
    forget, learn = trainer.step.strengths.values()
    assert forget.ending == learn.ending is not None and learn.plan.holds_rate and not forget.plan.holds_rate
    row = trainer.state.log_history[0]
    assert {"learn_distance", "learn_gain", "forget_distance", "forget_gain", "retain_drift"} <= row.keys()


def test_both_fade_together_where_a_run_may_be_extended(tmp_path):
    """The forget steps lead: they no longer come closer in step 6, whatever the learn steps do."""
    objective, forget, retain, learn = three()
    args = config(tmp_path, max_steps=9, extend_to=36, learning_rate=None)
    trainer = UnlearnTrainer(objective, args, CLU(), forget, retain, learn_dataset=learn)
    for strength, closer in zip(trainer.step.strengths.values(), (0.0, 10.0)):
        strength.plan = replace(strength.plan, closer=closer)
    trainer.train()
    assert [strength.ending for strength in trainer.step.strengths.values()] == [6, 6]
    assert trainer.state.global_step == 9


def test_a_stream_is_retained_while_data_are_learnt(tmp_path):
    datasets = pytest.importorskip("datasets")
    objective, forget, retain, learn = three()
    rows = datasets.Dataset.from_dict({"place": range(len(retain))}).to_iterable_dataset()
    rows = rows.map(lambda row: retain[row["place"]], remove_columns=["place"])
    found = []
    for folder, resume in (("a", None), ("b", str(tmp_path / "a/checkpoint-3"))):
        objective, *_ = three()
        values = config(tmp_path / folder, max_steps=5, save_strategy="steps", save_steps=3, logging_steps=1)
        trainer = UnlearnTrainer(objective, values, CLU(), forget, rows, learn_dataset=learn)
        trainer.train(resume_from_checkpoint=resume)
        found.append(weights(trainer))
        assert trainer.state.log_history[0]["learn_loss"] > 0
    assert same(*found)
    with pytest.raises(ValueError, match="2 samples are in both the learn and the forget set"):
        UnlearnTrainer(objective, config(tmp_path), CLU(), forget, rows, learn_dataset=subset(forget.dataset, [1, 5]))


def test_learn_samples_are_met_evenly():
    """Item i holds samples i, i + L // 3 and i + 2 (L // 3) of six: one batch of each place passes over all."""
    data = [{"pixel_values": torch.zeros(1), "labels": i} for i in range(6)]
    pairs = ForgetRetainDataset(None, [dict(data[0])], multiple=4, learn=data, learn_batches=3)
    assert len(pairs) == 8
    assert [item["labels"] for item in pairs[5]["learn"]] == [5, 1, 3]


def images_like(count: int, label: int, shape=(1, 8, 8)) -> ArrayDataset:
    return ArrayDataset(torch.rand(count, *shape) * 2 - 1, torch.full((count,), label))


@pytest.mark.parametrize("method", [m for name, m in METHODS.items() if name not in ("clu", "finetune")])
def test_other_methods_refuse_data_to_learn(tmp_path, method):
    objective, forget, retain, learn = three("sd" if method.family else "vit")
    with pytest.raises(
        ValueError, match=f"^{method.name} learns no new data: leave learn_dataset out, or take .* clu$"
    ):
        UnlearnTrainer(objective, config(tmp_path), method(), forget, retain, learn_dataset=learn)


def bad_sets():
    nan = images_like(3, 2)
    nan.pixel_values[1] = float("nan")
    images = random_images()
    forget, retain = subset(images, [1, 5]), subset(images, [0, 2, 3, 4])
    return {
        "neither": ((None, retain, None), "clu needs data to learn or to forget: pass learn_dataset"),
        "no retain": ((forget, None, images_like(3, 2)), "clu needs retain data: pass retain_dataset"),
        "empty": ((forget, retain, []), "the learn set is empty"),
        "with forget": (
            (forget, retain, subset(images, [5, 6])),
            "1 samples are in both the learn and the forget set",
        ),
        "with retain": ((None, retain, subset(images, [4, 6])), "1 samples are in both the learn and the retain set"),
        "label": ((forget, retain, images_like(3, 9)), r"labels \[9\] are out of range: the model has 4 classes"),
        "size": ((forget, retain, images_like(3, 2, (1, 6, 6))), "images are 6x6 but the model takes 8x8"),
        "channels": ((forget, retain, images_like(3, 2, (3, 8, 8))), "images have 3 channels but the model takes 1"),
        "nan": ((forget, retain, nan), "sample 1 of the learn set .* not finite|learn.*1"),
        "items": ((forget, retain, [3, 4]), "items of the learn set are of type int"),
        "label missing": ((forget, retain, [{"pixel_values": torch.zeros(1, 8, 8)}]), "the data has no labels"),
    }


@pytest.mark.parametrize("name", bad_sets())
def test_what_does_not_fit_is_one_line(tmp_path, name):
    (forget, retain, learn), message = bad_sets()[name]
    with pytest.raises(ValueError, match=message) as caught:
        UnlearnTrainer(tiny_vit(), config(tmp_path), CLU(), forget, retain, learn_dataset=learn)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [("learn_floor", 1.0), ("learn_exponent", -1.0), ("learn_max_norm", -1.0), ("repair_weight", float("nan"))],
)
def test_numbers_out_of_bounds_are_refused(option, value):
    with pytest.raises(ValueError, match=option):
        CLU(**{option: value})


def test_fine_tuning_logs_both_losses(tmp_path):
    trainer = run(tmp_path, FineTune(), forgets=False, logging_steps=1)
    row = trainer.state.log_history[0]
    assert row["loss"] == pytest.approx(row["retain_loss"] + row["learn_loss"], rel=1e-4)


def test_a_class_that_is_learnt_from_other_samples_does_not_go(tmp_path):
    """Some samples of a class are forgotten and others learnt: the class is known afterwards."""
    images = random_images()
    forget, learn = subset(images, [1, 5]), subset(images, [9, 13])
    retain = subset(images, [i for i in range(20) if i % 4 != 1])
    lost = []
    for part in (learn, None):
        trainer = UnlearnTrainer(tiny_vit(), config(tmp_path), CLU(), forget, retain, learn_dataset=part)
        lost.append(trainer.objective.unseen.lost.tolist())
    assert lost == [[False] * 4, [False, True, False, False]]


def test_evaluation_measures_what_is_learnt_too(tmp_path):
    objective, forget, retain, learn = three()
    values = config(tmp_path, eval_strategy="steps", eval_steps=2)
    trainer = UnlearnTrainer(objective, values, CLU(), forget, retain, learn_dataset=learn)
    trainer.train()
    assert {"eval_learn_loss", "eval_forget_loss", "eval_retain_loss"} <= trainer.evaluate().keys()


def test_what_was_only_learnt_is_no_entry_of_the_history(tmp_path):
    assert run(tmp_path, CLU(), forgets=False).history == []
    (entry,) = run(tmp_path, CLU()).history
    assert entry["method"] == "clu"


def test_negative_gradients_still_need_no_learn_set(tmp_path):
    objective = NoisePrediction(tiny_pipeline())
    _, forget, retain, _ = three("unet")
    UnlearnTrainer(objective, config(tmp_path, max_steps=1), NegGradPlus(), forget, retain).train()
