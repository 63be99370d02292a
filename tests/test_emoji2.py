"""The second emoji model: what its captions say, what is kept out, and a training that goes on after a kill."""

import pytest
import torch
from diffusers import AutoencoderTiny
from emoji_captions import KEPT_KINDS, KINDS, TEMPLATES, WEIGHTS, asked, captions_of, drawn, names_of
from train_emoji2 import Training
from train_emoji_sd import build_pipeline
from transformers import CLIPTokenizer

from hf_unlearn.evaluation.emoji import EMOJI_SD, OBJECTS, STYLES, prompt_of


def _every(kinds, styles=STYLES, things=OBJECTS):
    return {caption for k in kinds for s in styles for t in things for caption in captions_of(k, s, t)}


def test_what_is_kept_is_never_a_caption_of_training():
    kept, trained = _every(KEPT_KINDS), _every(KINDS)
    assert not kept & trained and len(kept) == 72 * (4 + 1 + 1)
    generator = torch.Generator().manual_seed(0)
    captions = drawn(["noto"] * 3000, ["rocket"] * 3000, generator)
    assert set(captions) <= _every(KINDS, ["noto"], ["rocket"])
    plain = captions.count(prompt_of("noto", "rocket")) / 3000
    assert abs(plain - WEIGHTS[0]) < 0.03 and abs(sum(WEIGHTS) - 1) < 1e-9


def test_a_word_stands_for_one_object_and_captions_of_others_do_not_name_it():
    words = [(word, thing) for thing in OBJECTS for kind in names_of(thing).values() for word in (thing, *kind)]
    of = {}
    for word, thing in words:
        of.setdefault(word, set()).add(thing)
    assert all(len(things) == 1 for things in of.values())
    rockets = {"rocket", *(word for kind in names_of("rocket").values() for word in kind)}
    others = _every((*KINDS, *KEPT_KINDS), ["fluent", "twemoji"], [thing for thing in OBJECTS if thing != "rocket"])
    assert not any(word in caption for word in (*rockets, "noto", "google", "android") for caption in others)


def test_asked_takes_so_many_of_each_kind_evenly():
    rows = asked(["template", "plain"], 2, ["noto"], ["cat", "car"])
    assert [row[:3] for row in rows] == [
        ("template", "noto", "cat"),
        ("template", "noto", "cat"),
        ("template", "noto", "car"),
        ("template", "noto", "car"),
        ("plain", "noto", "cat"),
        ("plain", "noto", "car"),
    ]
    assert rows[1][3] == TEMPLATES[len(TEMPLATES) // 2].format(style="noto", thing="cat")


class Killed(Exception):
    """The run ends here."""


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, monkeypatch, capsys):
    tokenizer = CLIPTokenizer.from_pretrained(EMOJI_SD / "tokenizer")
    latents = torch.randn(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    names = [("noto", "cat"), ("fluent", "gem")]

    def training(folder, key="one"):
        torch.manual_seed(0)
        pipeline = build_pipeline(tokenizer, AutoencoderTiny(latent_channels=8))
        folder.mkdir(exist_ok=True)
        made = Training(pipeline, 6, 0, folder, key)
        made.resume()
        return made

    whole = training(tmp_path / "whole")
    whole.run(latents, names, 4, 100)
    broken = training(tmp_path / "broken")
    loss, calls = broken._loss, []

    def fails(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise Killed
        return loss(*arguments)

    monkeypatch.setattr(broken, "_loss", fails)
    with pytest.raises(Killed):
        broken.run(latents, names, 4, 2)
    resumed = training(tmp_path / "broken")
    assert resumed.done == 2 and "goes on after step 2" in capsys.readouterr().out
    resumed.run(latents, names, 4, 2)
    for part in ("unet", "text_encoder"):
        one, other = (getattr(made.pipeline, part).state_dict() for made in (whole, resumed))
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert any(
            not torch.equal(one[name], value) for name, value in getattr(broken.pipeline, part).state_dict().items()
        )
    early = training(tmp_path / "early")
    early.run(latents, names, 4, 100, last=4)
    assert early.done == 4
    early = training(tmp_path / "early")
    early.run(latents, names, 4, 100, last=100)
    assert early.done == 6, "the schedule has no more steps"
    one, other = (made.pipeline.unet.state_dict() for made in (whole, early))
    assert not torch.equal(one["conv_in.weight"], broken.pipeline.unet.state_dict()["conv_in.weight"])
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert training(tmp_path / "broken", "another").done == 0
    assert "of other settings" in capsys.readouterr().out
