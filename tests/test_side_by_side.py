"""Both models of a run, asked the same thing."""

import numpy as np
import pytest
import torch
from conftest import save_base_and_adapter, tiny_dit, tiny_pipeline, tiny_sd, tiny_unet, tiny_vit
from diffusers import DDIMScheduler, DDPMPipeline
from PIL import Image
from records import run_record

from hf_unlearn import Classification, add_lora, remove_adapters
from hf_unlearn.cli.side_by_side import Drawing, original_of, side_by_side
from hf_unlearn.data.images import to_pixels
from hf_unlearn.evaluation import DIGITS_DDPM
from hf_unlearn.saliency.ranks import choose_lora
from hf_unlearn.saving.adapters import save_adapter

QUICK = Drawing(num_inference_steps=2, guidance_scale=1.0)
BASE = {"name": "base", "revision": None, "on_hub": False}


def saved(tmp_path, make, record=None):
    """A run's folder, whose original lies beside it."""
    make(0).save_pretrained(tmp_path / "base")
    make(1).save_pretrained(tmp_path / "run")
    (record or run_record(base_model=BASE, per_class=[])).write(tmp_path / "run")
    return tmp_path / "run"


def unconditional(seed: int) -> DDPMPipeline:
    return DDPMPipeline(tiny_unet(None, seed), DDIMScheduler(1000))


@pytest.mark.parametrize(
    ("make", "kind", "condition", "asked"),
    [
        (tiny_pipeline, "class", 2, {"class_labels": [2], "guidance_scale": 1.0}),
        (tiny_dit, "class", 2, {"class_labels": [2], "guidance_scale": 1.0}),
        (tiny_sd, "prompt", "a cat", {"prompt": "a cat", "guidance_scale": 1.0}),
        (unconditional, "seed", None, {}),
    ],
)
def test_both_draw_from_the_same_seed(tmp_path, make, kind, condition, asked):
    pair = side_by_side(saved(tmp_path, make), drawing=QUICK)
    assert pair.kind == kind
    images = pair.draw(condition, 7)
    for model, image in zip((make(0), make(1)), images):
        model.set_progress_bar_config(disable=True)
        alone = model(**asked, num_inference_steps=2, generator=torch.Generator().manual_seed(7)).images[0]
        enlarged = alone.resize(image.size, Image.Resampling.NEAREST)
        assert image.size == (256, 256) and np.array_equal(np.asarray(image), np.asarray(enlarged))
    assert not np.array_equal(*(np.asarray(image) for image in images))
    assert not np.array_equal(np.asarray(images[0]), np.asarray(pair.draw(condition, 8)[0]))


def test_an_adapter_is_put_on_the_original(tmp_path):
    save_base_and_adapter(tmp_path)
    run_record(base_model=BASE, per_class=[]).write(tmp_path / "run")
    pair = side_by_side(tmp_path / "run", drawing=QUICK)
    images = [np.asarray(image) for image in pair.draw(1, 0)]
    assert not np.array_equal(*images)
    remove_adapters(pair.models["unlearned"])
    assert np.array_equal(np.asarray(pair.draw(1, 0)[1]), images[0])


def test_a_classifier_s_adapter_is_put_on_the_original(tmp_path):
    tiny_vit().save_pretrained(tmp_path / "base")
    objective = Classification(tiny_vit())
    add_lora(objective, choose_lora(objective, None, None, "all", rank=2))
    for name, p in objective.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(0))
    save_adapter(objective, tmp_path / "run")
    run_record(base_model=BASE, per_class=[]).write(tmp_path / "run")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8))
    found = side_by_side(tmp_path / "run").classify(image)
    for network, shares in zip((tiny_vit(), objective.network), found):
        logits = network.eval()(to_pixels(image, 8, 1)[None]).logits[0]
        assert list(shares.values()) == pytest.approx(logits.softmax(0).tolist(), abs=1e-6)
    assert list(found[0].values()) != pytest.approx(list(found[1].values()), abs=1e-3)


def test_both_classify_the_same_image(tmp_path):
    pair = side_by_side(saved(tmp_path, tiny_vit))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    found = pair.classify(image)
    assert pair.kind == "image"
    for seed, shares in enumerate(found):
        logits = tiny_vit(seed).eval()(to_pixels(image, 8, 1)[None]).logits[0]
        assert list(shares) == [f"LABEL_{i}" for i in range(4)]
        assert list(shares.values()) == pytest.approx(logits.softmax(0).tolist(), abs=1e-6)
    with pytest.raises(ValueError, match="choose an image"):
        pair.classify(None)


def test_forgotten_classes_are_named_and_drawn_as_they_were_measured(tmp_path):
    details = {"num_inference_steps": 3, "guidance_scale": 1.25}
    figures = {"after": {"forget_accuracy": {"value": 0, "definition": "d", "samples": 1, "details": details}}}
    pair = side_by_side(saved(tmp_path, tiny_pipeline, run_record(base_model=BASE, figures=figures)))
    assert pair.choices == [("0", 0), ("1", 1), ("2", 2), ("3 (forgotten)", 3)]
    assert pair.options == {"num_inference_steps": 3, "guidance_scale": 1.25}


@pytest.mark.parametrize(
    ("condition", "seed", "problem"), [(None, 0, "choose a class"), (1, -1, "from 0"), (1, None, "from 0")]
)
def test_questions_that_are_none(tmp_path, condition, seed, problem):
    pair = side_by_side(saved(tmp_path, tiny_pipeline), drawing=QUICK)
    with pytest.raises(ValueError, match=problem):
        pair.draw(condition, seed)


def test_where_the_original_is(tmp_path, monkeypatch):
    (tmp_path / "models" / "far").mkdir(parents=True)
    (tmp_path / "base").mkdir()
    run = tmp_path / "run"
    assert original_of(run_record(base_model={**BASE, "name": None}), run) == (str(DIGITS_DDPM), None)
    assert original_of(run_record(base_model=BASE), run) == (str(tmp_path / "base"), None)
    monkeypatch.chdir(tmp_path)
    far, words = {**BASE, "name": "far"}, ["hf-unlearn", "ddpm", "--pretrained_model_name_or_path"]
    for command in ([*words, "models/far"], [*words[:2], f"{words[2]}=models/far"]):
        assert original_of(run_record(base_model=far, command=command), run) == ("models/far", None)
    for path in ("../models/far", str(tmp_path / "models" / "far")):  # a record may come from elsewhere
        with pytest.raises(ValueError, match="'far', is not here"):
            original_of(run_record(base_model=far, command=[*words, path]), run)
    monkeypatch.undo()
    on_hub = {"name": "user/model", "revision": "v1", "on_hub": True}
    assert original_of(run_record(base_model=on_hub), run) == ("user/model", "v1")
    with pytest.raises(ValueError, match="did not keep it: give one with --original"):
        original_of(run_record(base_model={**BASE, "name": None}, family="Classification"), run)
    with pytest.raises(ValueError, match="'gone', is not here: say where it is with --original"):
        original_of(run_record(base_model={**BASE, "name": "gone"}), run)


def test_originals_that_do_not_fit(tmp_path, monkeypatch):
    run = saved(tmp_path, tiny_vit)
    tiny_pipeline().save_pretrained(tmp_path / "unet")
    with pytest.raises(ValueError, match="is a ClassConditionalDDPMPipeline, the run's a ViTForImageClassification"):
        side_by_side(run, str(tmp_path / "unet"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="(?s)user/none does not load .*give a folder with --original"):
        side_by_side(run, "user/none")
