"""Whom attacks on a forgotten class meet, and the suite on all of them."""

import pytest
import torch
from class_cases import Bands
from conftest import random_images, tiny_pipeline, tiny_unet
from diffusers import DDIMScheduler, DDPMPipeline

from hf_unlearn.attacks import ClassNull, class_trial, run_attacks, suite_of
from hf_unlearn.evaluation import SamplingConfig

IMAGES = random_images()


def trial(unlearned=None, original=None, **values):
    data = IMAGES.pixel_values, IMAGES.label_tensor
    return class_trial(unlearned or tiny_pipeline(1), original or tiny_pipeline(0), 1, *data, Bands(), **values)


def test_ceiling_controls_and_pictures():
    retrained = tiny_pipeline(2)
    made = trial(retrained=retrained, samples=9, names={1: "trousers"})
    own = made.unlearned
    assert own.target.name == "trousers" and own.target.asked == (1,) and own.samples == 9
    assert torch.equal(own.target.images, IMAGES.pixel_values[IMAGES.label_tensor == 1])
    assert made.ceiling.model is own.original and made.negative.model is retrained
    assert made.positive.model is own.model and made.positive.target.asked == (2,)
    assert made.positive.target.reader.number == 2 and own.target.reader.number == 1
    assert trial(kept=0).positive.target.asked == (0,) and trial().negative is None
    assert own.sampling == SamplingConfig()
    with pytest.raises(ValueError, match="no picture of class 7"):
        trial(kept=7)


def test_a_model_without_classes_is_asked_for_none():
    models = [DDPMPipeline(tiny_unet(None, seed=s), DDIMScheduler(1000)) for s in (0, 1)]
    made = trial(*models)
    assert made.unlearned.target.asked == () and made.unlearned.sampling.guidance_scale == 1
    assert len(ClassNull().attack(made.unlearned, 0).recovered) == 36


def test_the_suite_runs_on_all_and_is_resumed(tmp_path, monkeypatch):
    from hf_unlearn.attacks import ClassEmbedding

    made = trial(samples=4, sampling=SamplingConfig(num_inference_steps=2), retrained=tiny_pipeline(2))
    attacks = [a for a in suite_of("ddpm") if not isinstance(a, ClassEmbedding)] + [ClassEmbedding(4, 2)]
    found = run_attacks(attacks, made, tmp_path)
    assert set(found) == {"recovered_class_null", "recovered_class_guidance", "recovered_class_embedding"}
    for metric in found.values():
        assert metric.samples == 8 and metric.details["ceiling"] and metric.details["negative"]
        assert metric.details["positive"]["target"] == "class 2" and metric.details["reader"] == "the classifier"
    for kind in map(type, attacks):
        monkeypatch.setattr(kind, "attack", None)  # what is not kept would be attacked again, and fail
    assert run_attacks(attacks, made, tmp_path) == found
