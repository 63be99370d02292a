"""Runs whose strength is found: when it is, what masks and precision do to it, how they end and go on."""

import pytest
import torch
from conftest import config, same, tiny_pipeline, tiny_vit, weights
from families import family_case
from torch.nn.functional import cross_entropy

from hf_unlearn import Classification, FineTune, NegGradPlus, SFRon, UnlearnConfig, UnlearnTrainer, split_by_label
from hf_unlearn.cli.commands.classify import ClassifierFlags
from hf_unlearn.cli.commands.ddpm import DDPMFlags
from hf_unlearn.cli.commands.dit import DiTFlags
from hf_unlearn.cli.commands.t2i import DiffusionFlags
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.report.loading import recipe_flags
from hf_unlearn.report.recording import record_run
from hf_unlearn.saliency.masks import Masks
from hf_unlearn.saliency.ranks import add_lora, choose_lora
from hf_unlearn.training.config import RATE
from hf_unlearn.training.strength import Plan, Strength, extended

EAGER = Plan(floor=0.1, by=0.15)  # so that the end is reached early


def learnt_case():
    """A ViT that tells four kinds of images apart: (objective, images of kind 1, the others)."""
    generator, labels = torch.Generator().manual_seed(4), torch.arange(40) % 4
    kinds = torch.randn(4, 1, 8, 8, generator=generator)
    images = kinds[labels] + 0.3 * torch.randn(40, 1, 8, 8, generator=generator)
    model = tiny_vit()
    adam = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        adam.zero_grad()
        cross_entropy(model(pixel_values=images).logits, labels).backward()
        adam.step()
    return Classification(model), *split_by_label(ArrayDataset(images, labels), 1)


def made(folder, method=None, family="unet", rank=None, masks=None, plan=None, **values) -> UnlearnTrainer:
    objective, forget, retain = learnt_case() if family == "learnt" else family_case(family)
    if rank:
        add_lora(objective, choose_lora(objective, forget, retain, rank=rank))
    args = config(folder, **{"max_steps": 6, "learning_rate": None, **values})
    trainer = UnlearnTrainer(objective, args, method or SFRon(), forget, retain, masks)
    if plan is not None:
        trainer.step.strength.plan = plan
    return trainer


def run(folder, method=None, resume=None, **values) -> UnlearnTrainer:
    trainer = made(folder, method, **values)
    trainer.train(resume_from_checkpoint=resume and str(resume))
    return trainer


# ---- when it is found --------------------------------------------------------------------------------
def test_without_a_learning_rate_it_is_found_and_with_one_it_is_not():
    for given, found, rate in (({}, True, RATE), ({"learning_rate": 2e-3}, False, 2e-3)):
        args = UnlearnConfig(use_cpu=True, **given)
        assert (args.find_strength, args.learning_rate) == (found, rate)
    args = UnlearnConfig(use_cpu=True, learning_rate=2e-3, find_strength=True)
    assert (args.find_strength, args.learning_rate) == (True, 2e-3)


RATES = {
    "given": ({}, {"learning_rate": 1e-3}),
    "said": ({"strength": "rate"}, {}),
    "reference": ({"preset": "reference"}, {}),
    "paper": ({"preset": "paper"}, {}),
    "forget rate": ({"forget_learning_rate": 1e-3}, {}),
    "shared": ({"forget_optim": "shared"}, {}),
    "data": ({"retain_loss": "data"}, {}),
    "no bound": ({"forget_loss": "ascent", "bound": "none"}, {}),
}


@pytest.mark.parametrize("case", RATES)
def test_what_has_no_end_or_a_rate_of_its_own_takes_the_rate(tmp_path, case):
    options, values = RATES[case]
    trainer = made(tmp_path, SFRon(**options), **values)
    assert trainer.step.strength is None and trainer.step.method.strength == "rate"
    assert trainer.step.method.floor == 0.1 and not trainer.objective.still


@pytest.mark.parametrize("options", [{}, {"forget_loss": "match"}, {"forget_loss": "ascent"}, {"bound": "own"}])
def test_what_has_an_end_finds_its_strength(tmp_path, options):
    trainer = made(tmp_path, SFRon(**options))
    assert trainer.step.strength is not None and trainer.step.method.strength == "auto"
    assert trainer.method.strength == "auto" and trainer.step.method.needs_baseline


@pytest.mark.parametrize("method", [FineTune(), NegGradPlus()], ids=["finetune", "neg_grad_plus"])
def test_other_methods_take_the_rate_that_suits_them(tmp_path, method):
    trainer = made(tmp_path, method)
    assert trainer.step.strength is None and trainer.args.learning_rate == RATE


@pytest.mark.parametrize("family", ["unet", "vit"])
def test_a_given_rate_is_the_method_at_a_rate(tmp_path, family):
    values = dict(family=family, learning_rate=1e-3, lr_scheduler_type="cosine", max_steps=3)
    given = run(tmp_path, SFRon(), **values)
    said = run(tmp_path, SFRon(strength="rate"), **values)
    both = run(tmp_path, SFRon(strength="rate"), find_strength=True, **values)
    assert same(weights(given), weights(said)) and same(weights(given), weights(both))
    found = run(tmp_path, SFRon(), find_strength=True, **values)
    assert found.step.strength is not None and not same(weights(given), weights(found))
    assert same(weights(found), weights(run(tmp_path, SFRon(), **{**values, "learning_rate": None})))


# ---- masks and precision -----------------------------------------------------------------------------
def test_nothing_outside_the_masks_moves_in_a_forget_step_and_masks_of_ones_are_none(tmp_path):
    trainer = run(tmp_path, weight_decay=0.1, verify_mask_steps=1)
    assert trainer.verify_mask() == 0 and 0 < trainer.masks.density < 1
    start = tiny_pipeline().unet
    ones = Masks({n: torch.ones_like(p, dtype=torch.bool) for n, p in start.named_parameters()})
    masked, unmasked = run(tmp_path, masks=ones), run(tmp_path, SFRon(use_mask=False))
    assert same(weights(masked), weights(unmasked)) and not same(weights(trainer), weights(unmasked))
    assert any(not torch.equal(v, weights(masked)[n]) for n, v in start.state_dict().items())


def test_weights_outside_the_masks_stay_as_they_are_without_retain_steps_too(tmp_path):
    """Masks of zeros leave nothing to move: no slope, no length, and so no retain step either."""
    zeros = Masks({n: torch.zeros_like(p, dtype=torch.bool) for n, p in tiny_pipeline().unet.named_parameters()})
    trainer = run(tmp_path, masks=zeros, weight_decay=0.1)
    assert same(weights(trainer), tiny_pipeline().unet.state_dict()) and trainer.step.strength.rate == 0


@pytest.mark.parametrize("family", ["unet", "vit"])
def test_bf16_weights_train_save_and_reload(tmp_path, family):
    objective, *sets = family_case(family)
    objective.network.bfloat16()
    trainer = UnlearnTrainer(objective, config(tmp_path, max_steps=4, learning_rate=None), SFRon(), *sets)
    start = {n: v.clone() for n, v in weights(trainer).items()}
    trainer.train()
    trainer.save_model()
    ours, reloaded = weights(trainer), trainer.objective.reload_network(str(tmp_path)).state_dict()
    assert trainer.step.strength.lengths == 4 and trainer.objective.dtype == torch.bfloat16
    assert same(ours, {name: value.to(ours[name].dtype) for name, value in reloaded.items()})
    assert any(not torch.equal(value, start[name]) for name, value in ours.items())
    assert all(value.isfinite().all() for value in ours.values())


# ---- how they go on ----------------------------------------------------------------------------------
OPTIONS = {
    "stable": (SFRon(), {}),
    "ascent": (SFRon(forget_loss="ascent", slow_rate=0.5, slow_form="lookahead"), {}),
    "ema": (SFRon(slow_form="ema", slow_rate=0.3), {}),
    "LoRA": (SFRon(), {"rank": 2}),
    "unseen": (SFRon(), {"family": "vit"}),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_resumed_equals_straight(tmp_path, case):
    """Step 2 is before the end begins, 5 while the steps fade, 6 the last one."""
    method, values = OPTIONS[case]
    values = dict(save_strategy="steps", save_steps=1, weight_decay=0.1, **values)
    straight = run(tmp_path / "a", method, **values)
    assert straight.step.strength.ending == 4
    for place in (2, 5, 6):
        resumed = run(tmp_path / "b", method, tmp_path / f"a/checkpoint-{place}", **values)
        assert same(weights(straight), weights(resumed)) and resumed.state.global_step == 6
        assert straight.step.strength.state_dict() == resumed.step.strength.state_dict()
    if "rank" not in values:
        start = family_case(values.get("family", "unet"))[0].network.state_dict()
        assert not same(weights(straight), start)


def test_a_checkpoint_of_a_run_at_a_rate_is_not_gone_on_with(tmp_path):
    run(tmp_path / "a", learning_rate=1e-3, max_steps=2, save_strategy="steps", save_steps=1)
    with pytest.raises(ValueError, match="has no (strength|adversary): resume from another checkpoint"):
        run(tmp_path / "b", resume=tmp_path / "a/checkpoint-1")


# ---- how they end ------------------------------------------------------------------------------------
def test_a_run_that_has_forgotten_ends_early_as_any_run_ends(tmp_path):
    """With a checkpoint and an evaluation of its last step; resumed from there it takes no further one."""
    often = dict(save_strategy="steps", save_steps=100, eval_strategy="steps", eval_steps=100, logging_steps=1)
    often.update(family="learnt", plan=EAGER, max_steps=60)
    trainer = run(tmp_path, **often)
    strength, taken = trainer.step.strength, trainer.state.global_step
    assert strength.reached and strength.level <= 0.2 and taken == 2 * strength.ending < 60
    record = record_run(trainer, "class 1", {}).training
    assert trainer.outer_steps == record.outer_steps == taken and record.learning_rate is None
    seen = [row["step"] for row in trainer.state.log_history if "eval_forget_score" in row]
    assert seen[-1] == taken
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == [f"checkpoint-{taken}"]
    resumed = run(tmp_path / "b", None, tmp_path / f"checkpoint-{taken}", **often)
    assert resumed.state.global_step == taken and same(weights(trainer), weights(resumed))
    longer = run(tmp_path / "c", extend_to=240, **often)  # what is in time is the same where it might have gone on
    assert longer.state.global_step == taken and same(weights(trainer), weights(longer))


def test_a_run_that_has_not_forgotten_goes_on_and_is_resumed_there(tmp_path):
    """A plan of 4 steps that cannot be kept is extended to 9; a run at a rate takes its 4."""
    slow = Plan(by=0.25, closer=10.0, gain=(0.05, 0.05))
    values = dict(save_strategy="steps", save_steps=1, max_steps=4, extend_to=9, plan=slow)
    straight = run(tmp_path / "a", **values)
    strength = straight.step.strength
    assert straight.state.global_step == straight.outer_steps == 9 and not strength.reached and strength.ending == 6
    resumed = run(tmp_path / "b", None, tmp_path / "a/checkpoint-6", **values)
    assert same(weights(straight), weights(resumed)) and resumed.state.global_step == 9
    assert strength.state_dict() == resumed.step.strength.state_dict()
    recipe = recipe_flags(record_run(straight, "class 1", {}))  # what was asked for, not what was taken
    assert {"--max_train_steps 4", "--extend_to 9"} <= set(recipe)
    at_rate = run(tmp_path / "c", max_steps=4, extend_to=9, learning_rate=1e-3)
    assert at_rate.state.global_step == 4
    assert not [line for line in recipe_flags(record_run(at_rate, "class 1", {})) if "extend_to" in line]
    assert run(tmp_path / "d", max_steps=4, plan=slow).state.global_step == 4


def test_what_only_learns_is_not_extended():
    """It would go on with the new and lose the old: on CIFAR-10 seven points of all that a service knew."""
    args = UnlearnConfig(use_cpu=True, extend_to=200)
    assert extended(args, {"learn": Strength(kind="learn")}) is extended(args, {}) is args
    assert extended(args, {"forget": Strength()}).max_steps == 200 and args.max_steps == 50


def test_only_the_usual_steps_of_a_class_conditional_unet_or_classifier_are_extended_by_default():
    """On text to image the same broke what is retained: the README's rocket took 600 steps instead of 300."""
    steps = [(a.max_steps, a.extend_to) for a in (UnlearnConfig(use_cpu=True, max_steps=n) for n in (None, 50, 7))]
    assert steps == [(50, 50), (50, 50), (7, 7)]
    for flags, usual in ((DDPMFlags, 200), (ClassifierFlags, 200), (DiTFlags, 100), (DiffusionFlags, 300)):
        made = [flags(**given).config(use_cpu=True).extend_to for given in ({}, {"max_train_steps": 7})]
        assert made == [usual, 7] and flags(extend_to=900).config(use_cpu=True).extend_to == 900
    assert UnlearnConfig(use_cpu=True, num_train_epochs=2).extend_to == -1
    with pytest.raises(ValueError, match="extend_to is 5, below max_steps"):
        UnlearnConfig(use_cpu=True, max_steps=7, extend_to=5)


def test_the_rate_in_the_log_is_the_one_that_retain_steps_took(tmp_path):
    trainer, used = made(tmp_path, logging_steps=1), []
    trainer.create_optimizer()
    step = trainer.step.weights.base.step

    def watched(*args, **kwargs):
        used.append(trainer.step.weights.base.param_groups[0]["lr"])
        return step(*args, **kwargs)

    trainer.step.weights.base.step = watched
    trainer.train()
    rows = [row for row in trainer.state.log_history if "learning_rate" in row]
    assert len(rows) == 6 and len(used) == 12 and used[::2] == used[1::2] and len(set(used)) == 6
    assert [row["learning_rate"] for row in rows] == pytest.approx(used[::2], rel=1e-12)
    assert used[-1] == trainer.step.strength.rate > 0
    assert all({"forget_distance", "forget_gain", "retain_drift"} <= row.keys() for row in rows)


def test_a_second_call_finds_its_strength_anew(tmp_path):
    """Else it would begin with the end of the first one."""
    trainer = made(tmp_path, family="learnt", plan=EAGER, max_steps=60)
    trainer.train()
    first, moments = trainer.outer_steps, trainer.step.weights.forget
    assert trainer.step.strength.reached
    begun, begin = [], trainer.step.strength.begin

    def watched(number, total, near, most):
        begun.append((number, trainer.step.strength.ending, trainer.step.strength.gain, trainer.step.strength.lengths))
        begin(number, total, near, most)

    trainer.step.strength.begin = watched
    trainer.train()
    assert begun[0] == (0, None, 1.0, 0) and trainer.step.weights.forget is moments
    assert trainer.outer_steps == first + len(begun) and len(begun) < first  # it was far already
