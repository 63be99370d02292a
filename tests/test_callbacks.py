"""The early stop with scores written by hand, and the weights that the divergence guard keeps."""

from dataclasses import dataclass, replace

import pytest
import torch
from conftest import config, same, tiny_pipeline, tiny_vit
from safetensors.torch import load_file
from transformers import TrainerCallback

from hf_unlearn import DivergenceError, FineTune, SFRon, UnlearnTrainer, split_by_label
from hf_unlearn.data.pairs import collate
from hf_unlearn.training import callbacks
from hf_unlearn.training.callbacks import TwoSidedStop

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def trainer_of(folder, images, method, **values) -> UnlearnTrainer:
    return UnlearnTrainer(tiny_pipeline(), config(folder, **values), method, *split_by_label(images, 1))


def weights(trainer) -> dict[str, torch.Tensor]:
    return trainer.objective.network.state_dict()


def of_checkpoint(folder) -> dict[str, torch.Tensor]:
    return {n.removeprefix("network."): v for n, v in load_file(folder / "model.safetensors").items()}


@pytest.fixture
def scripted(monkeypatch):
    """Replace what the evaluations measured: {step: (forget score, retain drift)}."""

    def script(scores: dict[int, tuple[float, float]]) -> None:
        update = TwoSidedStop.update
        monkeypatch.setattr(TwoSidedStop, "update", lambda self, score, drift, step: update(self, *scores[step], step))

    return script


STOP = dict(max_steps=8, eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2)


def test_stops_at_the_target_with_those_weights(tmp_path, images, scripted):
    scripted({2: (0.5, 0.0), 4: (0.3, 0.0), 6: (0.0, 0.0)})
    trainer = trainer_of(tmp_path, images, SFRon(), target_forget=0.3, **STOP)
    trainer.train()
    assert trainer.state.global_step == 4 and trainer.early_stop.best["forget_score"] == 0.3
    assert same(weights(trainer), of_checkpoint(tmp_path / "checkpoint-4"))


def test_stops_at_the_drift_and_goes_back_to_the_best_within_it(tmp_path, images, scripted):
    """Step 6 forgets more but hurts the retained data too much."""
    scripted({0: (1.0, 0.0), 2: (0.5, 0.0), 4: (0.3, 0.1), 6: (0.1, 0.11)})
    trainer = trainer_of(tmp_path, images, SFRon(), max_retain_drift=0.1, **STOP)
    trainer.train()
    assert trainer.state.global_step == 6
    assert trainer.early_stop.best == {"forget_score": 0.3, "retain_drift": 0.1, "step": 4}
    assert same(weights(trainer), of_checkpoint(tmp_path / "checkpoint-4"))
    assert not same(weights(trainer), of_checkpoint(tmp_path / "checkpoint-6"))
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_run_to_the_end_keeps_the_best_not_the_last(tmp_path, images, scripted):
    scripted({2: (0.5, 0.0), 4: (0.2, 0.0), 6: (0.4, 0.0), 8: (0.2, 0.0)})
    trainer = trainer_of(tmp_path, images, SFRon(), target_forget=0.1, **STOP)
    trainer.train()
    assert trainer.state.global_step == 8 and trainer.early_stop.best["step"] == 4
    assert same(weights(trainer), of_checkpoint(tmp_path / "checkpoint-4"))


def test_nothing_within_bounds_keeps_the_original(tmp_path, images, scripted):
    scripted({0: (1.0, 0.0), 2: (0.0, 0.5)})
    trainer = trainer_of(tmp_path, images, SFRon(), max_retain_drift=0.1, **STOP)
    original = {n: v.clone() for n, v in weights(trainer).items()}
    trainer.train()
    assert trainer.early_stop.best["step"] == 0 and trainer.state.global_step == 2
    assert same(weights(trainer), original)


def test_the_best_survives_a_resume_elsewhere(tmp_path, images, scripted):
    scripted({2: (0.2, 0.0), 4: (0.5, 0.0), 6: (0.4, 0.0), 8: (0.3, 0.0)})
    straight = trainer_of(tmp_path / "a", images, SFRon(), target_forget=0.1, **STOP)
    straight.train()
    resumed = trainer_of(tmp_path / "b", images, SFRon(), target_forget=0.1, **STOP)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a/checkpoint-4"))
    best = of_checkpoint(tmp_path / "a/checkpoint-2")
    assert same(weights(straight), best) and same(weights(resumed), best)


def test_the_best_of_an_ema_is_the_average_that_was_measured(tmp_path, images, scripted):
    scripted({2: (0.2, 0.0), 4: (0.5, 0.0)})
    method = dict(slow_form="ema", slow_rate=0.3, forget_schedule="constant")
    stopped = trainer_of(tmp_path / "a", images, SFRon(**method), target_forget=0.1, **{**STOP, "max_steps": 4})
    stopped.train()
    short = trainer_of(tmp_path / "b", images, SFRon(**method), max_steps=2)
    short.train()
    assert same(weights(stopped), weights(short))
    assert not same(weights(stopped), of_checkpoint(tmp_path / "a/checkpoint-2"))  # the fast weights there


@dataclass(frozen=True)
class Breaks(FineTune):
    """Fine-tuning whose loss is not a number from half of the run on."""

    def loss(self, step, batch):
        losses = super().loss(step, batch)
        return losses if step.progress < 0.5 else replace(losses, retain=losses.retain * float("nan"))


def test_last_good_holds_the_weights_of_the_step_it_names(tmp_path, images):
    broken = trainer_of(tmp_path / "a", images, Breaks(), max_steps=4, guard_steps=1)
    with pytest.raises(DivergenceError, match="outer step 3: loss is not finite; the weights of step 2 are in"):
        broken.train()
    good = trainer_of(tmp_path / "b", images, FineTune(), max_steps=2)
    good.train()
    assert same(load_file(tmp_path / "a/last_good" / WEIGHTS), weights(good))
    assert not list((tmp_path / "a").glob("*.safetensors"))


def test_a_trained_classifier_may_lose_more_than_a_multiple_of_almost_nothing(tmp_path, images):
    trainer = UnlearnTrainer(tiny_vit(), config(tmp_path, guard_steps=0), SFRon(), *split_by_label(images, 1))
    trainer.guard.first_retain = 1e-5
    trainer.guard.check_retain(torch.tensor(2.7))  # twice chance among four classes is 2.77
    with pytest.raises(DivergenceError, match="retain_loss 2.8 is over 2.773"):
        trainer.guard.check_retain(torch.tensor(2.8))


def test_last_good_of_an_average_is_the_average(tmp_path, images):
    trainer = trainer_of(tmp_path, images, SFRon(slow_form="ema", slow_rate=0.3), max_steps=2, guard_steps=1)
    kept = {}

    class Keep(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):  # after the guard's
            kept.update(load_file(tmp_path / "last_good.safetensors"))

    trainer.add_callback(Keep())
    trainer.train()
    assert same(kept, weights(trainer))


def test_without_guard_steps_nothing_is_written(tmp_path, images):
    with pytest.raises(DivergenceError, match="guard_steps is 0, so no weights were kept"):
        trainer_of(tmp_path, images, Breaks(), guard_steps=0).train()
    assert not (tmp_path / "last_good").exists() and not list(tmp_path.glob("*.safetensors"))


def test_retain_loss_is_compared_with_the_originals(tmp_path, images):
    trainer = trainer_of(tmp_path, images, FineTune(), max_loss_ratio=3.0, guard_steps=0)
    guard = trainer.guard
    batch = trainer.step.draws.add(
        collate([images[i] for i in (0, 2)]), trainer.step.draws.generator("train", 0), forget=False
    )
    guard.expect_retain(lambda: trainer.objective(**batch).mean())
    assert guard.first_retain == trainer.objective(**batch).mean().item()
    guard.first_retain = 2.0
    guard.expect_retain(lambda: torch.tensor(5.0))  # once a run: the weights have moved since
    for value in (2.0, 1.0, 5.9, 6.0):
        guard.check_retain(torch.tensor(value))
    with pytest.raises(DivergenceError, match="retain_loss 6.1 is over 6, max_loss_ratio times the original's"):
        guard.check_retain(torch.tensor(6.1))
    with pytest.raises(DivergenceError, match="retain_loss nan"):
        guard.check_retain(torch.tensor(float("nan")))


def test_what_learns_may_lose_the_known_for_some_steps(tmp_path, images):
    """A new class takes known ones along until repair steps catch up: a small ViT did, and recovered."""
    guard = trainer_of(tmp_path, images, FineTune(), max_loss_ratio=3.0, guard_steps=0).guard
    guard.sets, guard.first_retain = {"learn": images}, 2.0
    for value in [7.0] * 9 + [5.0] + [7.0] * 9:
        guard.check_retain(torch.tensor(value))
    other = trainer_of(tmp_path, images, FineTune(), max_loss_ratio=3.0, guard_steps=0).guard
    other.load_state_dict(guard.state_dict())  # a resumed run goes on counting
    other.sets = guard.sets
    for counting in (guard, other):
        with pytest.raises(DivergenceError, match="retain_loss 7 is over 6"):
            counting.check_retain(torch.tensor(7.0))
        counting.high = 0
        with pytest.raises(DivergenceError, match="retain_loss nan"):
            counting.check_retain(torch.tensor(float("nan")))


def test_a_bar_counts_the_outer_steps(tmp_path, images, monkeypatch):
    made = []
    real = callbacks.bar
    monkeypatch.setattr(callbacks, "bar", lambda *given: made.append(real(*given)) or made[-1])
    trainer = trainer_of(tmp_path, images, FineTune(), max_steps=3)
    trainer.add_callback(callbacks.Progress("training"))
    counts = []

    def update(self, n: int) -> None:
        counts.append(n)
        self.n += n

    monkeypatch.setattr(type(real(range(1), "")), "update", update)
    trainer.train()
    assert len(made) == 1 and made[0].total == 3 and counts == [1, 1, 1]
