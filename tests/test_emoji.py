"""The emoji benchmark: its pictures, its augmentation, and its figures on judged pictures that are known."""

import json
import sys
from pathlib import Path

import emoji_card
import numpy as np
import pytest
import torch
from attack_emoji import wide_rows
from emoji_figures import canvas_figures, draw_grid
from emoji_pictures import ICONS, PACKAGES, augmented, load_emoji
from torch import nn

from hf_unlearn.evaluation.emoji import EMOJI_SD, OBJECTS, STYLES, EmojiClassifier, prompt_of
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline

SHARED = Path(__file__).parents[2] / "shared/data/emoji4styles"


def test_pictures_by_style_and_object(tmp_path):
    names = [*reversed(ICONS.values()), "another"]
    (tmp_path / "names.json").write_text(json.dumps([{"name": name} for name in names]))
    for number, style in enumerate(STYLES):
        pictures = np.zeros((len(names), 64, 64, 3), dtype=np.uint8)
        pictures[:, 0, 0, 0] = np.arange(len(names))
        pictures[:, 0, 0, 1] = number
        np.savez(tmp_path / f"{style}_64.npz", x=pictures)
    images, styles, things = load_emoji(tmp_path)
    read = ((images[:, :, 0, 0] + 1) * 127.5).round().int()
    assert read[:, 1].tolist() == styles.tolist() and len(images) == len(STYLES) * len(OBJECTS)
    assert read[:, 0].tolist() == [len(OBJECTS) - 1 - thing for thing in things.tolist()]
    assert prompt_of("noto", "cat") == "a noto emoji of a cat"
    (tmp_path / "noto_64.npz").unlink()
    with pytest.raises(ValueError, match="has no noto_64.npz"):
        load_emoji(tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/emoji4styles")
def test_the_shared_pictures_have_every_object():
    images, styles, things = load_emoji(SHARED)
    assert images.shape == (72, 3, 64, 64) and images.min() >= -1 and images.max() == 1
    assert len({tuple(pair) for pair in torch.stack([styles, things], 1).tolist()}) == 72


def test_pictures_and_classifier_number_the_same_things():
    assert tuple(ICONS) == OBJECTS and tuple(PACKAGES) == STYLES


def test_augmentation_stays_in_range_on_white_and_follows_its_generator():
    images = torch.ones(8, 3, 64, 64)
    images[:, :, 24:40, 24:40] = -1
    first, again, other = (augmented(images, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.min() >= -1 and first.max() <= 1 and (first[:, :, 0] == 1).all()
    dark = (first < 0).double().mean((1, 2, 3)) / (images < 0).double().mean((1, 2, 3))
    assert 0.6 < dark.min() and dark.max() < 1.3


class Reads(nn.Module):
    """A judge that reads style and object from the first two pixels."""

    num_features = 2

    def features(self, images):
        return images[:, 0, 0, :2]

    def forward(self, images):
        found = images[:, 0, 0, :2].round().long()
        return nn.functional.one_hot(found[:, 0], 3).double(), nn.functional.one_hot(found[:, 1], 24).double()


def test_figures_by_hand():
    """Two styles, two objects, two pictures each; one of the forgotten style is still drawn, one retained is not."""
    styles, things = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])
    images = torch.zeros(8, 3, 4, 4)
    images[:, 0, 0, 0] = torch.tensor([0, 2, 2, 2, 1, 1, 1, 0])  # style read
    images[:, 0, 0, 1] = torch.tensor([0, 0, 1, 1, 0, 0, 1, 0])  # object read
    real = (images + 0.1 * torch.randn(images.shape), styles, things)
    figures = canvas_figures(Reads(), images, styles, things, ("style", 0), real)
    assert figures["UA"] == 0.75 and figures["IRA"] == 0.75 and figures["CRA"] == 0.75
    figures = canvas_figures(Reads(), images, styles, things, ("object", 1), real)
    assert figures["UA"] == 0.25 and figures["IRA"] == 1 and figures["CRA"] == 0.75


def test_the_judge_has_two_heads_and_the_grid_the_same_noise():
    judge = EmojiClassifier().eval()
    style, thing = judge(torch.zeros(2, 3, 64, 64))
    assert style.shape == (2, 3) and thing.shape == (2, 24)

    class Pipeline:
        def set_progress_bar_config(self, disable):
            pass

        def __call__(self, prompts, generator, **options):
            images = torch.stack([torch.rand(3, 4, 4, generator=g) for g in generator])
            return type("Out", (), {"images": images})

    images, styles, things = draw_grid(Pipeline(), 2, 1, 1.0, batch_size=7)
    again, _, _ = draw_grid(Pipeline(), 2, 1, 1.0, batch_size=50)
    assert torch.equal(images, again) and len(images) == 144
    assert styles.bincount().tolist() == [48] * 3 and things.bincount().tolist() == [6] * 24


def test_the_shipped_pipeline_draws_what_it_is_asked_for():
    """One picture of each of 24 prompts; the card's figures are of 360 in twice the steps."""
    pipeline = load_text_to_image_pipeline(str(EMOJI_SD))
    pipeline.set_progress_bar_config(disable=True)
    judge = EmojiClassifier.from_pretrained(EMOJI_SD / "judge", torch_dtype=torch.float32).eval()
    asked = [(number % 3, number) for number in range(24)]
    prompts = [prompt_of(STYLES[s], OBJECTS[o]) for s, o in asked]
    options = dict(num_inference_steps=10, guidance_scale=3.0, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        style, thing = judge(pipeline(prompts, **options, output_type="pt").images * 2 - 1)
    assert (style.argmax(1) == torch.tensor([s for s, _ in asked])).sum() >= 20
    assert (thing.argmax(1) == torch.tensor([o for _, o in asked])).sum() >= 20
    weights = sum(path.stat().st_size for path in EMOJI_SD.rglob("*.safetensors"))
    assert weights <= 12 * 2**20


@pytest.mark.long
def test_pictures_rendered_from_npm():
    """The packages on npm have every object, drawn on white, and no two alike."""
    pytest.importorskip("resvg_py", reason="pip install 'hf-unlearn[emoji]': it draws them")
    images, styles, things = load_emoji()
    assert images.shape == (72, 3, 64, 64) and images.min() >= -1 and images.max() == 1
    assert len({tuple(pair) for pair in torch.stack([styles, things], 1).tolist()}) == 72
    assert len({image.numpy().tobytes() for image in images}) == 72
    assert (images[:, :, 0, 0] == 1).all(dim=1).double().mean() > 0.9  # the corner is background


def test_the_wide_table_has_a_row_a_model():
    share = {"value": 0.25, "samples": 72, "details": {"per_seed": {"0": 0.25, "1": 0.25}}}
    steps = {"value": 15.0, "samples": 10, "details": {"per_seed": {"0": 20, "1": 10}}}
    figures = {"UA": 1.0, "IRA": 0.976, "CRA": 0.957}
    every = {"object:rocket|sfron|0": {"figures": figures, "soft_prefix": share, "relearning_steps": steps}}
    attacks = ["soft_prefix", "relearning_steps"]

    rows = wide_rows(every, attacks)

    found = ["25.0% [16.4, 36.1]", "20, 10"]
    assert rows == [["object:rocket", "sfron", "0", "100.0", "97.6", "95.7", *found]]
    del every["object:rocket|sfron|0"]["figures"]
    assert wide_rows(every, attacks) == [["object:rocket", "sfron", "0", *found]]


def test_a_card_without_pictures_ends_before_it_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("emoji_card.trained", lambda *_: pytest.fail("it trained"))
    monkeypatch.setitem(sys.modules, "resvg_py", None)  # not installed
    for more, reason in (([], "pip install -e"), (["--data_dir", str(tmp_path)], "has no fluent_64.npz")):
        monkeypatch.setattr("sys.argv", ["emoji_card.py", "--output_dir", str(tmp_path / "out"), *more])
        with pytest.raises(SystemExit):
            emoji_card.main()
        assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
