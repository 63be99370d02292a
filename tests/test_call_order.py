"""The order of calls does not matter, and what is measured on the original is measured in its own precision."""

import pytest
import torch
from conftest import config, random_images, same, tiny_vit, unlearned, weights
from families import family_case

from hf_unlearn import SFRon, UnlearnTrainer, split_by_label
from hf_unlearn.report.recording import record_run
from hf_unlearn.saliency.fisher import fisher


def trainer_of(folder, family="vit", method=None, callbacks=None, **values):
    objective, *data = family_case(family)
    given = {"max_steps": 2, **values}
    return UnlearnTrainer(objective, config(folder, **given), method, *data, callbacks=callbacks)


def with_dropout(folder, **values):
    model = tiny_vit()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    return UnlearnTrainer(model, config(folder, max_steps=2, **values), SFRon(), *split_by_label(random_images(), 1))


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("family", ["vit", "dit"])
def test_evaluating_first_changes_no_weight(tmp_path, family, bf16):
    alone = trainer_of(tmp_path, family, bf16=bf16)
    alone.train()
    after = trainer_of(tmp_path, family, bf16=bf16)
    after.evaluate()
    after.predict(after.retain_dataset)
    after.train()
    assert same(weights(alone), weights(after))


def test_evaluating_moves_no_dropout_mask(tmp_path):
    """A data loader draws its seed from the generator that dropout draws from."""
    alone = with_dropout(tmp_path)
    alone.train()
    after = with_dropout(tmp_path)
    after.evaluate()
    after.train()
    within = with_dropout(tmp_path, eval_strategy="steps", eval_steps=1)
    within.train()
    assert same(weights(alone), weights(after)) and same(weights(alone), weights(within))


@pytest.mark.parametrize("family", ["vit", "unet"])
def test_a_fisher_is_taken_in_the_precision_of_the_weights(tmp_path, family):
    """After an evaluation, after training, with checkpointed activations, and within somebody's autocast."""
    objective, forget, _ = family_case(family)
    wanted, _ = fisher(objective, forget, True)
    trainer = trainer_of(tmp_path, family, bf16=True, learning_rate=0.0, method=SFRon(forget_learning_rate=1e-12))
    trainer.evaluate()
    after_evaluating, _ = fisher(trainer.objective, trainer.forget_dataset, True)
    with torch.autocast("cpu", torch.bfloat16):
        within, _ = fisher(trainer.objective, trainer.forget_dataset, True)
    trainer.accelerator.prepare_model(trainer.objective)
    trainer.objective.train()
    if trainer.objective.checkpointable:
        trainer.objective.activation_checkpointing_enable()
    prepared, _ = fisher(trainer.objective, trainer.forget_dataset, True)
    assert all(torch.equal(wanted[n], found[n]) for found in (after_evaluating, within, prepared) for n in wanted)
    assert trainer.objective.training and "forward" in vars(trainer.objective)  # as they were


def test_evaluating_other_data_leaves_the_drift_alone(tmp_path):
    """The drift is measured from the first evaluation of the run's own retain set."""
    trainer = trainer_of(tmp_path)
    trainer.evaluate({"retain": trainer.forget_dataset})
    assert trainer.evaluate()["eval_retain_drift"] == 0


def test_two_calls_of_train_are_both_recorded(tmp_path):
    trainer = trainer_of(tmp_path, logging_steps=1)
    trainer.train()
    trainer.train()
    record = record_run(trainer, "x", {})
    assert trainer.outer_steps == record.training.outer_steps == trainer.history[-1]["outer_steps"] == 4
    assert [row["step"] for row in record.log] == [1, 2, 3, 4]


def test_a_resumed_second_call_counts_the_first_one(tmp_path):
    values = {"save_strategy": "steps", "save_steps": 1}
    first = trainer_of(tmp_path, **values)
    first.train()
    first.train()
    resumed = trainer_of(tmp_path, **values)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert resumed.outer_steps == 4 and same(weights(first), weights(resumed))


def test_a_second_call_with_a_target_has_a_best_of_its_own(tmp_path):
    values = {"eval_strategy": "steps", "eval_steps": 1, "target_forget": 1.0}
    trainer = trainer_of(tmp_path, **values)
    trainer.train()
    assert trainer.state.global_step == 1 and not list(tmp_path.glob("best*"))
    trainer.train()
    assert trainer.state.global_step == 1 and trainer.outer_steps == 2 and not list(tmp_path.glob("best*"))


def test_what_ran_is_recorded(tmp_path, monkeypatch):
    images = random_images()
    assert record_run(unlearned(tiny_vit(), tmp_path, SFRon()), "x", {}).training.precision == "fp32"
    for model, values in ((tiny_vit(), {"bf16": True}), (tiny_vit().bfloat16(), {})):
        trainer = UnlearnTrainer(model, config(tmp_path, **values), SFRon(), *split_by_label(images, 1))
        assert record_run(trainer, "x", {}).training.precision == "bf16"
    with pytest.raises(ValueError, match="fp16 needs a GPU: on a CPU set bf16"):
        config(tmp_path, fp16=True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        config(tmp_path)
