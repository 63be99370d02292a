"""Evaluation during training against means taken by hand over the same draws."""

import pytest
import torch
from conftest import config, tiny_pipeline

from hf_unlearn import NegGradPlus, SFRon, UnlearnTrainer, split_by_label


@pytest.fixture
def trainer(tmp_path, images, monkeypatch) -> UnlearnTrainer:
    """Its `seen` holds the batches of evaluations, with their draws."""
    made = UnlearnTrainer(tiny_pipeline(), config(tmp_path), NegGradPlus(), *split_by_label(images, 1))
    made.evaluator.prepare(made.eval_dataset)  # its draws are not those of the losses
    made.seen, add = [], made.evaluator.draws.add

    def recording(*args, **kwargs):
        made.seen.append(add(*args, **kwargs))
        return made.seen[-1]

    monkeypatch.setattr(made.evaluator.draws, "add", recording)
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
    assert not torch.equal(trainer.seen[2]["noise"], trainer.seen[3]["noise"])
    assert not any(batch["drop_labels"].any() for batch in trainer.seen)


def way_of(trainer, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """What the network predicts for a forget batch under its own labels and under its anchors."""
    objective = trainer.objective
    own = {k: v for k, v in batch.items() if k != "index"}
    with torch.no_grad():
        return objective(**own, predict=True), objective(
            **{**own, "labels": objective.other_labels(batch)}, predict=True
        )


def test_the_scores_of_the_original_and_of_its_anchor(trainer):
    """1 and no drift; 0 once the embedding of the class is that of its anchor, in every part of the schedule."""
    before = trainer.evaluate()
    assert before["eval_forget_score"] == 1 and before["eval_retain_drift"] == 0
    embedding = trainer.objective.network.class_embedding.weight
    with torch.no_grad():
        embedding[1] = embedding[2]
    after = trainer.evaluate()
    assert after["eval_forget_score"] == pytest.approx(0, abs=1e-4) and after["eval_retain_drift"] == 0
    found = trainer.evaluator.progress()
    assert found.parts == pytest.approx([1] * len(found.parts), abs=1e-4) and found.off_axis == pytest.approx(
        0, abs=1e-6
    )


def test_progress_by_hand(trainer):
    """Along the way, across it, and the drift of the retained in the unit of the way."""
    probe = trainer.evaluator.probe
    was = [way_of(trainer, batch) for batch in probe.forget]
    own, anchor = (torch.cat(part).flatten(1) for part in zip(*was))
    kept = torch.cat(probe.kept).flatten(1)
    with torch.no_grad():
        trainer.objective.network.conv_out.bias += 0.1
    found = trainer.evaluator.progress()
    moved = torch.cat([way_of(trainer, batch)[0] for batch in probe.forget]).flatten(1) - own
    way = anchor - own
    bins = torch.cat([trainer.objective.schedule.bins(b["timesteps"], 4) for b in probe.forget])
    parts = [float((moved * way)[bins == n].sum() / way[bins == n].square().sum()) for n in bins.unique()]
    assert found.parts == pytest.approx(parts, rel=1e-4) and found.value == min(found.parts)
    drift = 0.01 * kept.shape[1] / way.square().sum(1).mean()
    assert found.drift == pytest.approx(float(drift), rel=1e-3)


def test_evaluations_do_not_change_the_run(tmp_path, images):
    weights = []
    for values in ({}, {"eval_strategy": "steps", "eval_steps": 1}):
        trainer = UnlearnTrainer(tiny_pipeline(), config(tmp_path, **values), SFRon(), *split_by_label(images, 1))
        trainer.train()
        weights.append(trainer.objective.network.state_dict())
    assert all(torch.equal(v, weights[1][n]) for n, v in weights[0].items())
    assert sum("eval_forget_score" in row and "eval_retain_drift" in row for row in trainer.state.log_history) == 4
