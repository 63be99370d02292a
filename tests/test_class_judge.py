"""A transformers classifier as the judge of a class-conditional model: its figures by hand, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_classifier, tiny_dit, tiny_pipeline, tiny_vit
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

from hf_unlearn import load_ddpm_pipeline
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.evaluation import ClassifierJudge, SamplingConfig, drawn_classes, sample_classes

SCRIPTS = Path(__file__).parents[1] / "scripts"
QUICK = "--max_train_steps 2 --train_batch_size 4 --fisher_samples 4 --num_inference_steps 2".split()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """`ddpm` and `dit` of four classes, `judge` of them, `images` of the classes 0 to 2."""
    root = tmp_path_factory.mktemp("judged")
    tiny_pipeline().save_pretrained(root / "ddpm")
    tiny_dit().save_pretrained(root / "dit")
    save_classifier(tiny_vit(), root / "judge")
    generator = np.random.default_rng(0)
    for label in ("cat", "dog", "owl"):
        (root / "images" / label).mkdir(parents=True)
        for i in range(4):
            pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / label / f"{i}.png")
    return root


def command(folders, kind: str, out, *more) -> list:
    model = ["--pretrained_model_name_or_path", folders / kind, "--train_data_dir", folders / "images"]
    return [SCRIPTS / f"unlearn_{kind}.py", *QUICK, *model, "--output_dir", out, *more]


def judging(folders, *more) -> list:
    return ["--classifier_model_name_or_path", folders / "judge", "--eval_samples_per_class", 6, *more]


def test_logits_are_those_of_the_classifier_on_its_own_pixels():
    """Without a processor in [-1, 1]; with one as it makes them; the same one by one as together."""
    images = torch.rand(5, 1, 8, 8) * 2 - 1
    images = ((images + 1) * 127.5).round() / 127.5 - 1  # as files hold them
    model = tiny_vit().eval()
    judge = ClassifierJudge(model, None)
    with torch.no_grad():
        assert torch.allclose(judge(images), model(images).logits, atol=1e-5)
        states = model(images, output_hidden_states=True).hidden_states[-1]
    assert torch.allclose(judge.features(images), states.mean(1), atol=1e-5)
    assert judge.num_features == 16 and torch.allclose(judge(images[2:3]), judge(images)[2:3], atol=1e-5)
    processor = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.0] * 3, image_std=[1.0] * 3)
    sizes = dict(num_channels=3, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    coloured = ClassifierJudge(ResNetForImageClassification(ResNetConfig(num_labels=4, **sizes)), processor)
    with torch.no_grad():
        expected = coloured.model(((images + 1) / 2).repeat(1, 3, 1, 1)).logits
    assert torch.allclose(coloured(images), expected, atol=1e-5) and coloured.num_features == 8


def test_the_classes_that_are_drawn():
    retain = ArrayDataset(torch.zeros(40, 1, 8, 8), torch.arange(40) % 20)
    assert drawn_classes([3], retain) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert drawn_classes([30], retain, [2, 30, 7]) == [2, 7, 30]
    for named, words in (([21], "class 21 is not"), ([3], "no retained class")):
        with pytest.raises(ValueError, match=words):
            drawn_classes([3], retain, named)


@pytest.mark.parametrize("kind", ["ddpm", "dit"])
def test_a_script_is_judged(folders, tmp_path, run_script, kind):
    """The record's shares are those of the classifier on the same samples, before and after."""
    code, text, error = run_script(*command(folders, kind, tmp_path, *judging(folders, "--forget_class", 1)))
    assert code == 0 and "| before | " in text and "Frechet distance" in text, error
    record = json.loads((tmp_path / "unlearning_report.json").read_text())
    figures = record["figures"]
    assert {"forget_accuracy", "retain_accuracy", "frechet_distance"} <= figures["after"].keys()
    assert figures["before"]["forget_accuracy"]["details"]["judge"] == "judge"
    assert [row["name"] for row in record["per_class"]] == ["cat", "dog", "owl"] and record["per_class"][1]["forget"]
    assert (tmp_path / "before_after.png").is_file() and "judge" in (tmp_path / "README.md").read_text()
    if kind == "ddpm":
        for model, folder in (("before", folders / "ddpm"), ("after", tmp_path)):
            drawn = sample_classes(load_ddpm_pipeline(str(folder)), [0, 1, 2], SamplingConfig(6, 1.5, 2))
            with torch.no_grad():
                read = tiny_vit().eval()(drawn).logits.argmax(1).view(3, 6)
            shares = [(read[c] == c).double().mean().item() for c in range(3)]
            assert figures[model]["forget_accuracy"]["value"] == pytest.approx(shares[1])
            assert figures[model]["retain_accuracy"]["value"] == pytest.approx((shares[0] + shares[2]) / 2)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--eval_classes", 0], "set --classifier_model_name_or_path"),
        (["--judge_model_name_or_path", "judge", "--forget_indices", 1], "--forget_class"),
        (["--judge_model_name_or_path", "judge", "--forget_class", 1, "--eval_classes", 3], "class 3 is not in"),
        (["--judge_model_name_or_path", "nowhere/at/all", "--forget_class", 1], "does not exist"),
        (["--judge_model_name_or_path", "few", "--forget_class", 2], "name a judge with the model's class numbers"),
    ],
)
def test_what_a_judge_cannot_read_is_one_line(folders, tmp_path, run_script, more, words):
    model = tiny_vit()
    model.config.num_labels, model.classifier = 2, torch.nn.Linear(16, 2)
    model.save_pretrained(folders / "few")
    named = [folders / word if word in ("judge", "few") else word for word in more]
    code, _, error = run_script(*command(folders, "ddpm", tmp_path / "out", *named))
    lines = [line for line in error.splitlines() if "error:" in line]
    assert code == 2 and len(lines) == 1 and words in lines[0] and "Traceback" not in error, error
