"""Distances to a twin by hand, and the words that an unlearned emoji model is asked by."""

import math

import pytest
import torch
from emoji_captions import KINDS, captions_of
from emoji_twins import OTHER, compared, distances, drawn_by, mean_predictions, pairs_of, read_as
from emoji_words import ATTACK, kinds_for, shares, words_for
from torch import nn

from hf_unlearn.evaluation.emoji import EMOJI_SD, OBJECTS, prompt_of
from hf_unlearn.families.latents import Drawing
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline


class Reads(nn.Module):
    """Reads one of three classes from the first pixel, surely; both heads alike."""

    num_features = 3

    def features(self, images):
        return images[:, 0, 0, :3]

    def forward(self, images):
        logits = 40 * nn.functional.one_hot(images[:, 0, 0, 0].long(), 3).float()
        return logits, logits


def pictures(*classes):
    images = 0.1 * torch.rand(len(classes), 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images[:, 0, 0, 0] += torch.tensor(classes)
    return images


def test_divergence_of_mean_distributions_by_hand():
    """Two captions of two pictures: one is drawn alike by both models, the other half differently by the second."""
    one, other = pictures(0, 1, 2, 2), pictures(1, 0, 2, 1)
    found = mean_predictions(Reads(), one, 1, 2)
    assert torch.allclose(found.logits.exp(), torch.tensor([[0.5, 0.5, 0], [0, 0, 1]]), atol=1e-6)
    far = distances(Reads(), one, other, 1, 2)
    # Of (0, 0, 1) and (0, .5, .5): m = (0, .25, .75).
    js = (math.log(1 / 0.75) + 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)) / 2
    assert far["js"] == pytest.approx(js / 2, abs=1e-5) and far["kl"] > 1 and far["frechet"] > 0
    same = distances(Reads(), one, one, 1, 2)
    assert same["js"] == 0 and same["kl"] == 0 and same["frechet"] == pytest.approx(0, abs=1e-4)
    apart = distances(Reads(), pictures(0, 0), pictures(2, 2), 0, 1)
    assert apart["js"] == pytest.approx(math.log(2), abs=1e-5)
    with pytest.raises(ValueError, match="3 images cannot be shared evenly by 2 captions"):
        mean_predictions(Reads(), pictures(0, 1, 2), 1, 2)


def test_pairs_leave_out_what_a_twin_lacks_beside_the_target():
    forgotten, kept = pairs_of(("object", "rocket"), {"rocket", "noto"})
    assert forgotten == [("fluent", "rocket"), ("twemoji", "rocket")] and len(kept) == 2 * 23
    assert not any("noto" in pair or "rocket" in pair for pair in kept)
    forgotten, kept = pairs_of(("style", "noto"), {"rocket", "noto"})
    assert forgotten == [("noto", thing) for thing in OBJECTS if thing != "rocket"] and len(kept) == 2 * 23


def test_unlearned_to_twins_twins_to_each_other_and_the_floor():
    drawn = {"original": pictures(0, 0), "a": pictures(1, 1), "b": pictures(2, 2)}
    drawn |= {"a" + OTHER: pictures(1, 1), "b" + OTHER: pictures(2, 1)}
    table = compared(drawn, ["a", "b"], Reads(), 1, 1)
    pairs = ["original to a", "original to b", "IGJS: a to b", "floor: a to itself", "floor: b to itself"]
    assert list(table) == pairs
    assert table["floor: a to itself"]["js"] == 0 < table["floor: b to itself"]["js"] < table["IGJS: a to b"]["js"]
    assert read_as(Reads(), pictures(2, 2, 2, 1), 1, ("x", "y", "z")) == {"z": 0.75, "y": 0.25}


def test_twins_draw_twice_and_from_the_noise_of_the_others():
    pipeline = load_text_to_image_pipeline(str(EMOJI_SD))
    drawing = Drawing(num_inference_steps=1, guidance_scale=1.0, batch_size=4)
    loads = {"original": lambda: pipeline, "twin": lambda: pipeline}
    drawn = drawn_by(loads, ["twin"], {"forgotten": ([("noto", "cat"), ("fluent", "gem")], 2)}, drawing)["forgotten"]
    assert list(drawn) == ["original", "twin", "twin" + OTHER]
    assert torch.equal(drawn["original"], drawn["twin"]) and len(drawn["twin"]) == 4
    assert not torch.equal(drawn["twin"], drawn["twin" + OTHER])
    assert not torch.equal(drawn["twin"][0], drawn["twin"][1]), "two pictures of one caption have their own noise"


def test_words_for_a_target_name_it():
    plain = [prompt_of(style, "rocket") for style in ("fluent", "noto", "twemoji")]
    assert words_for("plain", ("object", "rocket"), 5) == [*plain, *plain[:2]]
    every = [caption for style in ("fluent", "noto", "twemoji") for caption in captions_of("synonym", style, "rocket")]
    assert words_for("synonym", ("object", "rocket"), 6) == [every[i * len(every) // 6] for i in range(6)]
    assert all("noto" in caption for caption in words_for("template", ("style", "noto"), 24))
    assert "no style" in kinds_for(("object", "cat")) and "no style" not in kinds_for(("style", "noto"))


def test_shares_by_kind_of_caption(monkeypatch):
    class Reader:
        name = "the first pixel"

        def __call__(self, images):
            return images[:, 0, 0, 0] > 0

    def ask(pipeline, prompts, drawing, seed):
        """A spaceship is drawn, whatever else is asked for is not."""
        return torch.tensor([1.0 if "spaceship" in prompt else -1.0 for prompt in prompts]).view(-1, 1, 1, 1)

    monkeypatch.setattr("hf_unlearn.attacks.pictures.ask", ask)
    monkeypatch.setattr("hf_unlearn.attacks.wordings.ask", ask)
    found = shares(None, Reader(), ("object", "rocket"), 36)
    assert set(found) == {*kinds_for(("object", "rocket")), ATTACK}
    assert found["plain"] == [0, "0.0% [0.0, 9.6]"] and found["kept synonym"][0] == 1
    assert found["synonym"][0] == 0.5 and all(0 <= found[kind][0] <= 1 for kind in KINDS)
