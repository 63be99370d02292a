"""What the loop refuses, guards, stops and writes."""

import json
from pathlib import Path

import pytest
import torch
from conftest import config, tiny_pipeline
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

from hf_unlearn import FineTune, GradientAscent, NegGradPlus, SFRon, UnlearnTrainer, split_by_label
from hf_unlearn.common.errors import DivergenceError
from hf_unlearn.data.images import ArrayDataset


def trainer_of(folder, images, method=None, pipeline=None, **values):
    return UnlearnTrainer(pipeline or tiny_pipeline(), config(folder, **values), method, *split_by_label(images, 1))


def test_methods_with_fast_steps_refuse_accumulation(tmp_path, images):
    with pytest.raises(ValueError, match="gradient_accumulation_steps=1"):
        trainer_of(tmp_path, images, SFRon(), gradient_accumulation_steps=2)
    trainer_of(tmp_path, images, NegGradPlus(), gradient_accumulation_steps=2)


def test_construction_names_what_is_missing(tmp_path, images, unconditional):
    forget, retain = split_by_label(images, 1)
    for method, sets, message in (
        (SFRon(), (None, retain), "sfron needs forget data: pass forget_dataset"),
        (FineTune(), (forget, None), "finetune needs retain data"),
    ):
        with pytest.raises(ValueError, match=message):
            UnlearnTrainer(tiny_pipeline(), config(tmp_path), method, *sets)
    for options, message in (
        ({"forget_loss": "match"}, "forget_loss='ascent'"),
        ({"forget_loss": "ascent", "bound": "other"}, "bound='own'"),
    ):
        with pytest.raises(ValueError, match=message):
            UnlearnTrainer(unconditional, config(tmp_path), SFRon(**options), forget, retain)
    with pytest.raises(ValueError, match="labels \\[7\\] are out of range"):
        wrong = ArrayDataset(images.pixel_values, torch.full((20,), 7))
        UnlearnTrainer(tiny_pipeline(), config(tmp_path), SFRon(), forget, wrong)
    with pytest.raises(ValueError, match="eval_strategy"):
        config(tmp_path, target_forget=0.1)
    with pytest.raises(ValueError, match="preset 'best' is not one of reference, paper, stable"):
        SFRon.from_preset("best")
    with pytest.raises(ValueError, match="bound must be one of"):
        SFRon(bound="tight")


def test_all_classes_forgotten_leaves_nothing_to_match(tmp_path, images):
    """Only when matching is used: ascent does not need another label."""
    from torch.utils.data import Subset

    forget, retain = Subset(images, range(10)), ArrayDataset(images.pixel_values[10:], images.label_tensor[10:])
    UnlearnTrainer(tiny_pipeline(), config(tmp_path), SFRon(), forget, retain).train()  # images, not classes
    one = UnlearnTrainer(tiny_pipeline(), config(tmp_path), GradientAscent(), images)
    one.train()
    with pytest.raises(ValueError, match="none to match"):
        one.step.anchor({"labels": torch.tensor([0])})


def test_a_second_train_keeps_the_original(tmp_path, images):
    """Its masks, its losses and its predictions, not those of the model already unlearned."""
    trainer = trainer_of(tmp_path, images, eval_strategy="steps", eval_steps=2)
    trainer.train()
    reference = trainer.reference
    original, losses, masks = reference.original, reference.baseline_losses, reference.masks
    start = tiny_pipeline().unet.state_dict()
    trainer.train()
    assert reference.original is original and reference.baseline_losses is losses and reference.masks is masks
    assert all(torch.equal(v, start[n]) for n, v in original.state_dict().items())
    assert not any(p.requires_grad for p in original.parameters()) and not original.training


def test_no_copy_without_need(tmp_path, images):
    trainer = trainer_of(tmp_path, images, SFRon(retain_loss="data"))
    trainer.train()
    assert trainer.reference.original is None


def test_resume_refuses_another_original(tmp_path, images):
    """The retain steps hold on to the original's predictions: they must be the same model's."""
    trainer_of(tmp_path, images, max_steps=2, save_strategy="steps", save_steps=1).train()
    other = UnlearnTrainer(tiny_pipeline(seed=7), config(tmp_path), SFRon(), *split_by_label(images, 1))
    with pytest.raises(ValueError, match="was written with model"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_resume_never_starts_afresh(tmp_path, images):
    trainer = trainer_of(tmp_path, images)
    for missing in (str(tmp_path / "nowhere"), True, "latest"):
        with pytest.raises(ValueError, match="checkpoint"):
            trainer.train(resume_from_checkpoint=missing)


def test_resume_refuses_other_options_and_other_data(tmp_path, images):
    trainer_of(tmp_path, images, max_steps=2, save_strategy="steps", save_steps=1).train()
    checkpoint = str(tmp_path / "checkpoint-1")
    assert (tmp_path / "checkpoint-1/masks.safetensors").exists()
    with pytest.raises(ValueError, match="options"):
        trainer_of(tmp_path, images, SFRon(forget_alpha=9.0)).train(resume_from_checkpoint=checkpoint)
    with pytest.raises(ValueError, match="was written with method sfron, this run has neg_grad_plus"):
        trainer_of(tmp_path, images, NegGradPlus()).train(resume_from_checkpoint=checkpoint)
    with pytest.raises(ValueError, match="manifest.json is missing"):
        (tmp_path / "stock").mkdir()
        (tmp_path / "stock/trainer_state.json").write_text("{}")
        trainer_of(tmp_path, images).train(resume_from_checkpoint=str(tmp_path / "stock"))
    other = ArrayDataset(images.pixel_values.flip(0), images.label_tensor)
    with pytest.raises(ValueError, match="was written with data"):
        trainer_of(tmp_path, other).train(resume_from_checkpoint=checkpoint)


def test_nan_in_the_data_stops_with_the_last_good_weights(tmp_path, images):
    broken = ArrayDataset(images.pixel_values.clone(), images.label_tensor)
    trainer = trainer_of(tmp_path, broken, SFRon(use_mask=False))
    broken.pixel_values[images.label_tensor == 1] = float("nan")  # after the check at construction
    culprits = "forget samples 0, 1, 2, 3, 4, ... hold inf or NaN"
    with pytest.raises(DivergenceError, match=f"forget_loss is not finite: {culprits}; the weights of step 0"):
        trainer.train()
    saved = UNet2DModel.from_pretrained(tmp_path / "last_good", subfolder="unet").state_dict()
    start = tiny_pipeline().unet.state_dict()
    assert all(torch.equal(saved[n], v) for n, v in start.items())


def test_exploding_retain_loss_stops(tmp_path, images):
    method = SFRon(forget_loss="ascent", bound="none", use_mask=False, forget_learning_rate=1.0)
    trainer = trainer_of(tmp_path, images, method, max_steps=20, guard_steps=1)
    with pytest.raises(DivergenceError, match="retain_loss .* is over|not finite"):
        trainer.train()
    saved = load_file(tmp_path / "last_good/unet/diffusion_pytorch_model.safetensors")
    assert all(torch.isfinite(v).all() for v in saved.values())


def test_a_good_run_leaves_no_snapshot(tmp_path, images):
    trainer_of(tmp_path, images).train()
    assert not list(tmp_path.glob("*.safetensors"))


def evaluations(trainer):
    rows = [row for row in trainer.state.log_history if "eval_retain_drift" in row]
    return {row["step"]: (row["eval_forget_score"], row["eval_retain_drift"]) for row in rows}


STOP = dict(max_steps=12, eval_strategy="steps", eval_steps=2)


def test_stops_when_forgotten_enough(tmp_path, images):
    trainer = trainer_of(tmp_path, images, target_forget=1.0, **STOP)
    trainer.train()
    assert trainer.state.global_step == 2 and trainer.early_stop.best["step"] == 2


def test_stops_when_retain_drifts_and_keeps_the_best(tmp_path, images):
    method = SFRon(forget_loss="ascent", bound="none", use_mask=False, forget_learning_rate=0.05)
    trainer = trainer_of(tmp_path, images, method, max_retain_drift=0.05, max_loss_ratio=1e9, **STOP)
    kept = {}

    class Keep(type(trainer.early_stop)):
        def update(self, *scores):
            stop = super().update(*scores)
            if self.best and self.best["step"] == trainer.state.global_step > 0:
                kept.update({n: v.clone() for n, v in trainer.objective.network.state_dict().items()})
            return stop

    trainer.early_stop.__class__ = Keep
    trainer.train()
    seen = evaluations(trainer)
    last = max(seen)
    assert seen[last][1] > 0.05 and trainer.state.global_step == last < 12
    if kept:  # else the original is
        assert all(torch.equal(kept[n], v) for n, v in trainer.objective.network.state_dict().items())
    else:
        assert all(drift > 0.05 for _, drift in seen.values())


def test_evaluation_draws_are_fixed(tmp_path, images):
    trainer = trainer_of(tmp_path, images)
    assert trainer.evaluate()["eval_forget_loss"] == trainer.evaluate()["eval_forget_loss"]
    assert trainer.evaluate()["eval_retain_drift"] == 0


def test_save_reloads_and_refuses_what_differs(tmp_path, images, monkeypatch):
    trainer = trainer_of(tmp_path, images)
    trainer.train()
    trainer.save_model()
    reloaded = UNet2DModel.from_pretrained(tmp_path, subfolder="unet").state_dict()
    assert all(torch.equal(reloaded[n], v) for n, v in trainer.objective.network.state_dict().items())
    name = "unet/diffusion_pytorch_model.safetensors"
    before, save = (tmp_path / name).read_bytes(), trainer.objective.save_pretrained

    def tampered(folder, **kwargs):
        save(folder, **kwargs)
        weights = load_file(Path(folder) / name)
        weights["conv_in.weight"] += 1e-3
        save_file(weights, Path(folder) / name, metadata={"format": "pt"})

    monkeypatch.setattr(trainer.objective, "save_pretrained", tampered)
    with pytest.raises(RuntimeError, match="conv_in.weight differs"):
        trainer.save_model()
    assert (tmp_path / name).read_bytes() == before and not list(tmp_path.rglob("*.partial"))


def test_bf16_trains_and_saves_fp32_weights(tmp_path, images):
    trainer = trainer_of(tmp_path, images, bf16=True)
    trainer.train()
    trainer.save_model()
    start = tiny_pipeline().unet.state_dict()
    for name, value in UNet2DModel.from_pretrained(tmp_path, subfolder="unet").state_dict().items():
        assert value.dtype == torch.float32 and torch.isfinite(value).all()
        assert value.numel() == 0 or not torch.equal(value, start[name]) or "bias" in name or "embedding" in name


def test_tracker_gets_both_losses(tmp_path, images, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tb"))
    trainer_of(tmp_path, images, report_to="tensorboard", logging_steps=2).train()
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    for name in ("train/forget_loss", "train/retain_loss"):
        assert [event.step for event in events.Scalars(name)] == [2, 4]


def test_progress_bar_shows_both_losses(tmp_path, images, capfd):
    trainer_of(tmp_path, images, disable_tqdm=False, logging_steps=2).train()
    shown = capfd.readouterr().err
    assert "forget=" in shown and "retain=" in shown


def test_checkpoint_holds_both_optimizers(tmp_path, images):
    trainer_of(tmp_path, images, max_steps=2, save_strategy="steps", save_steps=2).train()
    state = torch.load(tmp_path / "checkpoint-2/optimizer.pt", weights_only=True)
    assert state["base"]["state"] and state["forget"]["state"]
    assert json.loads((tmp_path / "checkpoint-2/unlearn_state.json").read_text())["method"] == "sfron"
