"""hf-unlearn attack: from a run's folder to attacks on its model, in the record, on the card and on the page."""

import json

import pytest
import torch
from attack_cases import changed_sd
from conftest import save_classifier, save_vit_and_images, tiny_clip, tiny_dit, tiny_pipeline, tiny_sd, tiny_vit
from PIL import Image
from records import classifier, generator, models, painter, run_record, share

from hf_unlearn.common.weights import model_digest
from hf_unlearn.evaluation.metric import is_attack
from hf_unlearn.families.description import Anchor, Description
from hf_unlearn.report.badge import BADGE_FILE
from hf_unlearn.report.reading import read_record
from hf_unlearn.report.record import BaseModel

PROMPTS = ("a photo of a rocket", "a rocket, detailed")
SHORT = ["--samples", "2", "--retain_prompts", "a dog", "a house", "a tree"]
DRAWN = {"num_inference_steps": 2, "guidance_scale": 1.5, "height": 16, "width": 16}


def painted(folder, digest=True, **figures):
    """The folder of a text-to-image run that Python made, beside its original."""
    tiny_sd().save_pretrained(folder / "base")
    changed_sd().save_pretrained(folder / "run")
    record = painter(concept_share_latents=(None, {**share(0.0, 32), "details": DRAWN}), **figures)
    record.command, record.log = None, []
    record.base_model = BaseModel("base", False, weights=model_digest(tiny_sd()) if digest else None)
    anchors = [Anchor(prompt, "a sailboat") for prompt in PROMPTS]
    record.objective = Description(train_method="xattn", anchors=anchors)
    record.write(folder / "run")
    return folder / "run"


def found_in(folder):
    after = read_record(folder).figures["after"]
    return {name: metric for name, metric in after.items() if is_attack(name)}


def test_a_text_to_image_run(call, tmp_path):
    """Two attacks: the record, the card, the badge and the page that is there say what they found."""
    run = painted(tmp_path)
    assert call("report", run)[0] == 0 and "It was not attacked" in (run / "report.html").read_text()
    code, text, error = call("attack", run, "--attacks", "wordings", "completion", *SHORT)
    assert code == 0, error
    found = found_in(run)
    assert list(found) == ["recovered_wordings", "recovered_completion"]
    for metric in found.values():
        details = metric.details
        assert metric.samples == 4 and set(details["per_seed"]) == {"0", "1"} and details["target"] == "a rocket"
        assert details["ceiling"]["samples"] == details["positive"]["samples"] == 2  # one seed is enough of them
        assert details["negative"] is None and 0 <= details["separable"] <= 1
        assert metric.details["budget"] in text
    for place in (run / "report.html", run / "README.md"):
        said = place.read_text()
        assert "recovered wordings" in said and "was not attacked" not in said
    record = read_record(run)
    assert record.outcome.state in (run / BADGE_FILE).read_text() and text.startswith(record.outcome.line)
    assert set(record.figures["after"]) == {"concept_share_latents", *found}


def test_an_attack_that_was_stopped_goes_on_and_comes_to_the_same(call, tmp_path, monkeypatch):
    """Straight, and stopped after three results: the same record; an equal call computes nothing."""
    words = ["--attacks", "wordings", "samplers", *SHORT]
    straight, stopped = (painted(tmp_path / name) for name in ("straight", "stopped"))
    assert call("attack", straight, *words)[0] == 0
    from hf_unlearn.attacks import running

    write, count = running.Results.write, []

    def limited(self, *arguments):
        if len(count) == 3:
            raise KeyboardInterrupt
        count.append(1)
        write(self, *arguments)

    monkeypatch.setattr(running.Results, "write", limited)
    assert call("attack", stopped, *words)[0] == 130 and not found_in(stopped) and len(count) == 3
    monkeypatch.setattr(running.Results, "write", write)
    assert call("attack", stopped, *words)[0] == 0
    assert found_in(stopped) == found_in(straight)
    monkeypatch.setattr(running.Results, "write", lambda *_: pytest.fail("computed again"))
    assert call("attack", stopped, *words)[0] == 0
