"""The judge with controls: what it numbers, the target of something never learnt, and what it is judged by."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from emoji_never import subject_of
from emoji_pictures import CONTROL_STYLES, CONTROLS, ICONS, augmented, load_emoji
from torch import nn
from train_emoji_judge import (
    JUDGED_OBJECTS,
    JUDGED_STYLES,
    describe,
    load_judge,
    load_judged,
    never_target,
    object_target,
    train_judge,
)

from hf_unlearn.evaluation.emoji import EMOJI_SD, OBJECTS, STYLES, EmojiClassifier


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of one colour: the red says the object, the green the style."""
    made = tmp_path_factory.mktemp("emoji")
    names = [*ICONS.values(), *CONTROLS.values()]
    (made / "names.json").write_text(json.dumps([{"name": name} for name in names]))
    for number, style in enumerate(JUDGED_STYLES):
        pictures = np.zeros((len(names), 64, 64, 3), dtype=np.uint8)
        pictures[..., 0] = 7 * np.arange(len(names))[:, None, None]
        pictures[..., 1] = 80 * number
        np.savez(made / f"{style}_64.npz", x=pictures)
    return made


def test_controls_are_none_of_what_models_learn_and_come_after_it(folder):
    assert not set(CONTROLS) & set(ICONS) and not set(CONTROLS.values()) & set(ICONS.values())
    assert JUDGED_OBJECTS[: len(OBJECTS)] == OBJECTS and JUDGED_STYLES[: len(STYLES)] == STYLES
    assert len(CONTROLS) == 12 and tuple(CONTROL_STYLES) == ("openmoji",)
    images, styles, things = load_judged(folder)
    read = ((images[:, :, 32, 32] + 1) * 127.5).round().int()
    assert images.shape == (144, 3, 64, 64)
    assert torch.equal(read[:, 0], 7 * things) and torch.equal(read[:, 1], 80 * styles)
    assert len(load_emoji(folder)[0]) == 72, "models still learn the 72"


class Reads(nn.Module):
    """Reads style and object from the colour in the middle."""

    config = type("Config", (), {"num_objects": len(JUDGED_OBJECTS)})

    def forward(self, images):
        read = ((images[:, :2, 32, 32] + 1) * 127.5).round().long().clamp(0)
        one_hot = nn.functional.one_hot
        return one_hot((read[:, 1] / 80).round().long(), 4).float(), one_hot(
            (read[:, 0] / 7).round().long(), 37
        ).float()


def test_the_target_of_something_never_learnt(folder):
    target = never_target(Reads(), "cactus", folder, 7)
    assert target.asked == tuple(f"a {style} emoji of a cactus" for style in STYLES)
    assert len(target.images) == 7 and target.captions[:4] == (*target.asked, target.asked[0])
    assert target.reader(target.images).all(), "its reader finds it in its pictures"
    other = object_target(Reads(), "rocket", folder, 3)
    assert other.reader(other.images).all() and not target.reader(other.images).any()
    with pytest.raises(ValueError, match="'rocket' is no object that was never learnt: choose one of anchor, cactus"):
        never_target(Reads(), "rocket", folder)
    subject = subject_of(object(), target, 6)
    assert subject.asked == [*target.asked, *target.asked] and subject.sampling.num_inference_steps == 20


def test_a_judge_without_controls_is_refused(tmp_path):
    with pytest.raises(ValueError, match="knows 24 objects and no controls"):
        load_judge(EMOJI_SD / "judge")
    EmojiClassifier(len(JUDGED_STYLES), len(JUDGED_OBJECTS)).save_pretrained(tmp_path)
    assert load_judge(tmp_path).config.num_styles == 4


class Same(nn.Module):
    """An autoencoder that loses nothing."""

    def encode(self, images):
        return type("Encoded", (), {"latents": images})

    def decode(self, latents):
        return type("Decoded", (), {"sample": latents})


def test_learnt_and_controls_are_judged_apart(folder, monkeypatch):
    data = load_judged(folder)
    monkeypatch.setattr("train_emoji_judge.augmented", lambda images, generator: images)
    figures = describe(Reads(), Same(), data, 1)
    assert len(figures) == 6 and all(row == {"style": 1.0, "object": 1.0} for row in figures.values())
    images, styles, things = data
    wrong = things.clone()
    wrong[(things == len(OBJECTS)) & (styles == 0)] = 0  # one of the 36 pictures of control objects
    figures = describe(Reads(), Same(), (images, styles, wrong), 1)
    assert figures["control objects"]["object"] == 1 and figures["learnt"]["object"] == 72 / 73


def test_training_learns_and_follows_its_seed(folder):
    data = load_judged(folder)
    vae = AutoencoderTiny.from_pretrained(EMOJI_SD / "vae", use_safetensors=True).float().eval()

    def trained():
        torch.manual_seed(0)
        return train_judge(data, vae, 3, torch.Generator().manual_seed(0))

    one, other = trained(), trained()
    pictures = augmented(data[0][:4], torch.Generator().manual_seed(1))
    assert torch.equal(one(pictures)[1], other(pictures)[1]) and one(pictures)[1].shape == (4, 36)
    assert not one.training
