"""`trainer.report()`: the files of a command, from Python, and the verdict on the screen."""

import json

import pytest
import torch
from conftest import config, tiny_vit
from PIL import Image

from hf_unlearn import GradientAscent, SFRon, UnlearnTrainer, split_by_label
from hf_unlearn.data import streaming
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.evaluation.metric import Metric
from hf_unlearn.report.outcome import outcome
from hf_unlearn.report.page import page
from hf_unlearn.report.reading import read_record

FILES = {"figures.json", "figures.md", "unlearning_report.json", "README.md", "verdict.svg", "report.html"}


def labelled() -> ArrayDataset:
    draws = torch.Generator().manual_seed(0)
    return ArrayDataset(torch.rand(24, 1, 8, 8, generator=draws) * 2 - 1, torch.arange(24) % 4)


def test_a_generator_is_reported_with_what_was_measured_elsewhere(tmp_path, pipeline, images, capsys):
    forget, retain = split_by_label(images, 1)
    trainer = UnlearnTrainer(pipeline, config(tmp_path, max_steps=2), GradientAscent(), forget, retain)
    with pytest.raises(ValueError, match="nothing was trained yet"):
        trainer.report()
    before = trainer.evaluate()
    trainer.train()
    Image.new("RGB", (40, 10), "red").save(tmp_path / "before_after.png")
    own = {"before": {"forget_accuracy": Metric(1.0, "s", 50)}, "after": {"forget_accuracy": Metric(0.0, "s", 50)}}
    record = trainer.report(metrics=own, before=before, forgotten="class 1", base_model=str(tmp_path))
    assert FILES <= {path.name for path in tmp_path.iterdir()}
    said = capsys.readouterr().out
    assert outcome(record).line in said and record.outcome.state in said and "report.html shows it." in said
    assert record.value("before", "forget_loss") == before["eval_forget_loss"]
    assert record.value("after", "forget_loss") == pytest.approx(trainer.evaluate()["eval_forget_loss"], rel=1e-6)
    assert record.value("after", "forget_accuracy") == 0.0 and record.value("after", "forget_progress") is not None
    assert record.picture == "before_after.png" and record.command is None
    assert read_record(tmp_path).figures == record.figures
    assert (tmp_path / "report.html").read_text() == page(record, tmp_path)
    assert json.loads((tmp_path / "figures.json").read_text())["before"]["forget_loss"]["value"] == pytest.approx(
        before["eval_forget_loss"]
    )


def test_losses_of_a_large_set_are_means_of_a_few_of_it(tmp_path, pipeline, images, monkeypatch):
    """All of 50,000 images took longer than the training; a set that is named is measured whole."""
    monkeypatch.setattr(streaming, "LOSSES_OF", 4)
    forget, retain = split_by_label(images, 1)
    arguments = (config(tmp_path, max_steps=1), GradientAscent(), forget, retain)
    trainer = UnlearnTrainer(pipeline, *arguments)
    few = trainer.eval_dataset["retain"]
    assert [few.indices[i] for i in range(4)] == [i * len(retain) // 4 for i in range(4)] and len(few) == 4
    given = UnlearnTrainer(pipeline, *arguments, eval_retain_dataset=few, eval_forget_dataset=forget)
    assert len(given.eval_dataset["forget"]) == len(forget) > 4
    assert trainer.evaluate()["eval_retain_loss"] == given.evaluate()["eval_retain_loss"]
    trainer.train()
    figures = trainer.report(show=False).figures["after"]
    assert (figures["retain_loss"].samples, figures["forget_loss"].samples) == (4, 4)
    classifier = UnlearnTrainer(tiny_vit(), *arguments)
    assert len(classifier.eval_dataset["retain"]) == len(retain)


def test_a_classifier_is_reported_before_and_after(tmp_path, capsys):
    forget, retain = split_by_label(labelled(), 1)
    model = tiny_vit()
    original = {name: p.clone() for name, p in model.named_parameters()}
    trainer = UnlearnTrainer(model, config(tmp_path, max_steps=1), SFRon(), forget, retain, forgotten="class 1")
    trainer.train()
    record = trainer.report(show=False, folder=tmp_path / "other")
    assert capsys.readouterr().out.count("FORGOTTEN") == 0 and record.picture is None
    assert FILES <= {path.name for path in (tmp_path / "other").iterdir()}
    assert any(not torch.equal(p, original[name]) for name, p in model.named_parameters())
    after = record.figures["after"]["forget_accuracy"]
    pixels = torch.stack([item["pixel_values"] for item in forget])
    model.eval()
    with torch.no_grad():
        right = (model(pixels.to(model.device)).logits.argmax(1) == 1).float().mean().item()
    assert after.value == pytest.approx(right) and after.samples == len(forget)
    assert ("before" in record.figures) == (trainer.reference.original is not None)
