"""Evaluation during training against means taken by hand over the same draws."""

import pytest
import torch
from conftest import config, tiny_pipeline

from hf_unlearn import NegGradPlus, SFRon, UnlearnTrainer, split_by_label


class Recording(UnlearnTrainer):
    """Keeps the batches of evaluations, with their draws."""

    seen: list

    def prediction_step(self, model, inputs, *args, **kwargs):
        number = self._eval_batches
        result = super().prediction_step(model, inputs, *args, **kwargs)
        self.seen.append(self.step.with_draws(inputs, self.step.generator("eval", number), forget=True))
        return result


@pytest.fixture
def trainer(tmp_path, images) -> Recording:
    made = Recording(tiny_pipeline(), config(tmp_path), NegGradPlus(), *split_by_label(images, 1))
    made.seen = []
    return made


def losses_of(trainer, batches) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([trainer.objective(**batch) for batch in batches])


def test_losses_are_means_over_samples_not_over_batches(trainer):
    """5 forget and 15 retain samples in batches of 4: the last batches are smaller."""
    metrics = trainer.evaluate()
    forget, retain = losses_of(trainer, trainer.seen[:2]), losses_of(trainer, trainer.seen[2:])
    assert (len(forget), len(retain)) == (5, 15)
    assert metrics["eval_forget_loss"] == pytest.approx(forget.mean().item(), rel=1e-5)
    assert metrics["eval_retain_loss"] == pytest.approx(retain.mean().item(), rel=1e-5)
    assert "eval_forget_score" not in metrics  # nothing to compare with: no profile was measured
    assert not torch.equal(trainer.seen[2]["noise"], trainer.seen[3]["noise"])
    assert not any(batch["drop_labels"].any() for batch in trainer.seen)


def test_score_is_the_share_below_the_profile(trainer):
    trainer.profile = torch.tensor([[0.0] * 10, [1.05] * 10])
    score = trainer.evaluate()["eval_forget_score"]
    known = losses_of(trainer, trainer.seen[:2]) < 1.05
    assert score == pytest.approx(known.float().mean().item()) and 0 < score < 1


def test_drift_is_relative_to_the_original(trainer):
    before = trainer.evaluate()["eval_retain_loss"]
    assert trainer.original_retain == before
    with torch.no_grad():
        trainer.objective.network.conv_out.bias += 0.5
    after = trainer.evaluate()
    assert after["eval_retain_drift"] == pytest.approx(after["eval_retain_loss"] / before - 1)
    assert after["eval_retain_drift"] > 0.05 and trainer.original_retain == before


def test_evaluations_do_not_change_the_run(tmp_path, images):
    weights = []
    for values in ({}, {"eval_strategy": "steps", "eval_steps": 1}):
        trainer = UnlearnTrainer(tiny_pipeline(), config(tmp_path, **values), SFRon(), *split_by_label(images, 1))
        trainer.train()
        weights.append(trainer.objective.network.state_dict())
    assert all(torch.equal(v, weights[1][n]) for n, v in weights[0].items())
    assert sum("eval_forget_score" in row and "eval_retain_drift" in row for row in trainer.state.log_history) == 4
