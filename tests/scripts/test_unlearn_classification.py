"""scripts/unlearn_classification.py as a user types it: what to forget, the table, one line for every bad input."""

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import TOKEN
from peft import PeftModel
from PIL import Image
from transformers import (
    AutoModelForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from hf_unlearn.cli.classifier_flags import unretained
from hf_unlearn.data.images import digits
from hf_unlearn.training import recipes

SCRIPT = Path(__file__).parents[2] / "scripts" / "unlearn_classification.py"
NAMES = ["zero", "one", "two", "three"]
FAST = ["--max_train_steps", "2", "--train_batch_size", "4", "--fisher_samples", "8", "--disable_tqdm", "True"]
FAST += ["--use_cpu", "True"]


def tiny_vit(labels: int = 4, width: int = 16) -> ViTForImageClassification:
    torch.manual_seed(0)
    names = [*NAMES, "four"][:labels]
    return ViTForImageClassification(
        ViTConfig(
            image_size=8,
            patch_size=4,
            num_channels=1,
            hidden_size=width,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
        )
    )


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, Path]:
    """Digit images to train and to test on, a model with names and a processor, retrained ones that fit and not."""
    root = tmp_path_factory.mktemp("classification")
    data = digits()
    for part, start, end in (("train", 0, 6), ("test", 6, 10)):
        for label, name in enumerate(NAMES):
            (root / part / name).mkdir(parents=True)
            for k, i in enumerate((data.label_tensor == label).nonzero()[start:end, 0]):
                pixels = ((data.pixel_values[i, 0] + 1) * 127.5).byte().numpy()
                Image.fromarray(pixels).save(root / part / name / f"{k}.png")
    tiny_vit().save_pretrained(root / "model")
    ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5]).save_pretrained(
        root / "model"
    )
    tiny_vit().save_pretrained(root / "retrained")
    tiny_vit(labels=5).save_pretrained(root / "five")
    tiny_vit(width=32).save_pretrained(root / "wide")
    ResNetForImageClassification(
        ResNetConfig(num_channels=1, num_labels=4, embedding_size=8, hidden_sizes=[8], depths=[1])
    ).save_pretrained(root / "resnet")
    return {path.name: path for path in root.iterdir()}


@pytest.fixture
def run(run_script):
    return functools.partial(run_script, SCRIPT)


def flags(paths: dict[str, Path], out: Path, test: bool = True) -> list:
    chosen = [
        "--pretrained_model_name_or_path",
        paths["model"],
        "--train_data_dir",
        paths["train"],
        "--output_dir",
        out,
    ]
    return [*FAST, *chosen, *(["--validation_data_dir", paths["test"]] if test else [])]


def test_forget_a_class_by_name(tmp_path, paths, run):
    out = tmp_path / "out"
    retrained = ["--retrained_model", paths["retrained"]]
    code, output, error = run(*flags(paths, out), *retrained, "--forget_class", "two")
    assert code == 0, error
    for row in ("original", "unlearned", "retrained"):
        assert f"| {row}" in output
    figures = json.loads((out / "figures.json").read_text())
    record = json.loads((out / "unlearning_report.json").read_text())
    after = {n: m for n, m in record["figures"]["after"].items() if n not in ("forget_progress", "retain_drift")}
    assert after == figures["unlearned"] and record["pipeline_tag"] == "image-classification"
    original = figures["original"]
    assert (original["forget_accuracy"]["samples"], original["retain_accuracy"]["samples"]) == (6, 18)
    assert (original["test_accuracy"]["samples"], original["forgotten_class_test_accuracy"]["samples"]) == (12, 4)
    assert original["kl_to_retrained"]["value"] == 0  # the same weights in this test
    assert figures["unlearned"]["kl_to_retrained"]["value"] > 0 and "average_gap" not in figures["retrained"]
    assert (out / "figures.md").read_text().strip() in output
    # the folders sort one, three, two, zero
    assert (out / "forget_indices.txt").read_text().split() == [str(i) for i in range(12, 18)]
    model = AutoModelForImageClassification.from_pretrained(out)
    assert [e["forgotten"] for e in model.config.unlearning_history] == ["class two"]
    card = (out / "README.md").read_text()
    assert "AutoImageProcessor.from_pretrained" in card and "| forgotten class test accuracy |" in card
    assert record["data"]["test"]["source"] == "test"
    assert model.config.id2label == dict(enumerate(NAMES)) and (out / "preprocessor_config.json").is_file()


def test_forget_a_fraction_then_the_same_by_its_indices(tmp_path, paths, run):
    first, second = tmp_path / "first", tmp_path / "second"
    code, output, error = run(*flags(paths, first, test=False), "--forget_fraction", "0.25", "--seed", "3")
    assert code == 0, error
    assert output.count("pass --validation_data_dir") == 1
    assert set(json.loads((first / "figures.json").read_text())["original"]) == {"forget_accuracy", "retain_accuracy"}
    positions = (first / "forget_indices.txt").read_text()
    assert len(positions.split()) == 6 and positions.split() == sorted(positions.split(), key=int)
    indices = ["--forget_indices", first / "forget_indices.txt"]
    code, _, error = run(*flags(paths, second, test=False), *indices, "--seed", "3")
    assert code == 0, error
    for name in ("model.safetensors", "forget_indices.txt", "figures.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_class_without_a_retained_image_is_said_before_training(tmp_path, paths, run):
    """All images of "two" are among the samples to forget, and "four" is a class of the model alone."""
    (tmp_path / "all_of_two.txt").write_text("".join(f"{i}\n" for i in range(12, 18)))
    samples = ["--forget_indices", tmp_path / "all_of_two.txt"]
    said = "1 of 4 classes has no retained image (two)"
    code, output, error = run(*flags(paths, tmp_path / "samples", test=False), *samples)
    assert code == 0 and output.count(said) == 1 and output.index(said) < output.index("[2/"), error
    shutil.copytree(paths["five"], tmp_path / "five")
    shutil.copy(paths["model"] / "preprocessor_config.json", tmp_path / "five")
    given = [*flags(paths, tmp_path / "class", test=False), "--pretrained_model_name_or_path", tmp_path / "five"]
    code, output, error = run(*given, "--forget_class", "two")
    assert code == 0 and output.count("1 of 5 classes has no retained image (four)") == 1, error
    code, output, error = run(*flags(paths, tmp_path / "whole", test=False), "--forget_class", "two")
    assert code == 0 and "no retained image" not in output, error


def test_many_classes_without_a_retained_image_are_counted():
    names = {i: f"LABEL_{i}" for i in range(100)}
    config = ViTConfig(id2label=names, label2id={name: i for i, name in names.items()})
    assert unretained([0, 1], config, [2]) == (
        "97 of 100 classes have no retained image (3, 4, 5, 6, 7, 8, ...): nothing holds what the model knows of "
        "them. Add images of them to the training images; name a class that is to go in --forget_class"
    )
    assert unretained([0, 1], config, range(2, 100)) == "" and unretained(None, config, []) == ""


def test_an_adapter_or_merged_weights(tmp_path, paths, run):
    what = [
        "--pretrained_model_name_or_path",
        paths["model"],
        "--train_data_dir",
        paths["train"],
        "--forget_class",
        "one",
        *FAST,
    ]
    lora = ["--use_lora", "--rank", "2"]
    code, text, error = run(*what, *lora, "--output_dir", tmp_path / "adapter")
    assert code == 0 and "PeftModel" in (tmp_path / "adapter/README.md").read_text(), error
    assert not (tmp_path / "adapter/model.safetensors").exists()
    code, text, error = run(*what, *lora, "--merge", "--output_dir", tmp_path / "merged")
    assert code == 0, error
    image = torch.randn(2, 1, 8, 8)
    original = AutoModelForImageClassification.from_pretrained(paths["model"])
    adapted = PeftModel.from_pretrained(original, str(tmp_path / "adapter")).eval()
    merged = AutoModelForImageClassification.from_pretrained(tmp_path / "merged")
    assert torch.allclose(adapted(image).logits, merged(image).logits, atol=1e-6)
    code, text, error = run(*what, "--merge", "--output_dir", tmp_path / "no")
    assert code == 2 and "--merge is for adapters: add --use_lora" in error


def test_unreadable_images_are_left_out_when_asked(tmp_path, paths, run):
    shutil.copytree(paths["train"], tmp_path / "train")
    (tmp_path / "train/one/2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    given = [*flags(paths, tmp_path / "out"), "--train_data_dir", tmp_path / "train", "--forget_class", "0"]
    code, output, error = run(*given)
    assert code == 2 and "one/2.png (position 2) is not a readable image" in error
    assert not any(path.is_file() for path in (tmp_path / "out").rglob("*"))
    code, output, error = run(*given, "--skip_unreadable_images")
    assert code == 0 and "1 unreadable images" in output and "one/2.png (position 2)" in output
    assert json.loads((tmp_path / "out/figures.json").read_text())["original"]["retain_accuracy"]["samples"] == 17
    assert (tmp_path / "out/forget_indices.txt").read_text().split() == [str(i) for i in range(18, 24)]


def test_bad_input_is_one_line_and_writes_nothing(tmp_path, paths, run):
    (tmp_path / "words.txt").write_text("1\ntwo\n")
    (tmp_path / "far.txt").write_text("1\n99\n")
    (tmp_path / "empty").mkdir()
    forget = ["--forget_class", "two"]
    cases = {
        "must lie in (0, 1), got 0.0": ["--forget_fraction", "0"],
        "must lie in (0, 1), got 1.0": ["--forget_fraction", "1"],
        "samples is 0": ["--forget_fraction", "0.001"],
        "class 'cat' is not in the model, which has zero, one, two, three": ["--forget_class", "cat"],
        "class '7' is not in the model": ["--forget_class", "7"],
        "column 'species' is not in the data, which has image, label": [*forget, "--label_column", "species"],
        "column 'img' is not in the data": [*forget, "--image_column", "img"],
        "has 5 classes, the model 4": [*forget, "--retrained_model", paths["five"]],
        "is another architecture: classifier.weight is (4, 32)": [*forget, "--retrained_model", paths["wide"]],
        "is another architecture: classifier.1.bias": [*forget, "--retrained_model", paths["resnet"]],
        "with one of --forget_class, --forget_fraction or": [*forget, "--forget_fraction", "0.1"],
        "say what to forget": [],
        "holds 'two': write one position a line": ["--forget_indices", tmp_path / "words.txt"],
        "forget indices [99] are not in use": ["--forget_indices", tmp_path / "far.txt"],
        "No such file": ["--forget_indices", tmp_path / "none.txt"],
        "no config.json": [*forget, "--pretrained_model_name_or_path", tmp_path / "empty"],
        "does not exist": [*forget, "--pretrained_model_name_or_path", tmp_path / "nowhere"],
        "is not a folder": [*forget, "--validation_data_dir", tmp_path / "nowhere"],
        "no image and no parquet file": [*forget, "--train_data_dir", tmp_path / "empty"],
        "not both": [*forget, "--dataset_name", "cifar10"],
        "must be at least 1, got 0": [*forget, "--max_train_samples", "0"],
        "hub_strategy must be 'end'": [*forget, "--push_to_hub", "--hub_strategy", "every_save"],
        "set gradient_accumulation_steps=1": [*forget, "--gradient_accumulation_steps", "2"],
        "unrecognized arguments": [*forget, "--forget_classes", "two"],
    }
    for message, arguments in cases.items():
        code, _, error = run(*flags(paths, tmp_path / "out"), *arguments)
        lines = [line for line in error.splitlines() if "error:" in line]
        assert code == 2 and len(lines) == 1 and message in lines[0], f"{arguments}: {error}"
        assert not any(path.is_file() for path in (tmp_path / "out").rglob("*"))
    for message, arguments in {
        "no model: set --pretrained_model_name_or_path": ["--train_data_dir", paths["train"], *forget],
        "no data: set --train_data_dir": ["--pretrained_model_name_or_path", paths["model"], *forget],
    }.items():
        code, _, error = run(*FAST, "--output_dir", tmp_path / "out", *arguments)
        assert code == 2 and message in error


def test_a_threshold_that_cannot_select_is_refused_before_the_default_models_are_trained(tmp_path, monkeypatch):
    from hf_unlearn.cli.commands.classify import classify_command

    monkeypatch.setattr(recipes, "train_classifier", None)
    with pytest.raises(ValueError, match="ssd selects no weight at selection=10: the forget set is 0.1 of all data"):
        classify_command(["--method", "ssd", "--selection", "10", "--output_dir", str(tmp_path)])


def test_the_same_for_pictures_before_anything_is_drawn(tmp_path):
    from hf_unlearn.cli.commands.sd import sd_command

    flags = ["--concept", "a cat", "--pretrained_model_name_or_path", str(tmp_path / "none"), "--method", "ssd"]
    with pytest.raises(ValueError, match="ssd selects no weight at selection=10: the forget set is 0.333 of all data"):
        sd_command([*flags, "--selection", "10", "--output_dir", str(tmp_path / "out")])


def test_default_run_compares_with_a_model_trained_without_the_forget_set(tmp_path, run, monkeypatch):
    short = dict(max_steps=3, per_device_train_batch_size=8, warmup_steps=0)
    seen, whole = [], recipes.train_classifier

    def train(model, dataset, seed, **options):
        seen.append(len(dataset))
        return whole(model, dataset, seed, **short)

    monkeypatch.setattr(recipes, "train_classifier", train)
    code, output, error = run(*FAST, "--output_dir", tmp_path / "out")
    assert code == 0, error
    trained_on = len(recipes.digits_splits()["train"])
    assert sorted(seen) == [trained_on - round(trained_on / 10), trained_on]  # a random tenth is left out
    figures = json.loads((tmp_path / "out/figures.json").read_text())
    assert list(figures) == ["original", "unlearned", "retrained"]
    assert figures["original"]["test_accuracy"]["samples"] == 270
    assert {"mia_entropy_logistic", "kl_to_retrained", "average_gap"} <= figures["unlearned"].keys()
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "out").config.num_labels == 10


def test_dry_run_prints_a_config_that_can_be_given_back(tmp_path, paths):
    """By subprocess, as a user would."""
    given = [*flags(paths, tmp_path / "never"), "--forget_class", "two", "one", "--learning_rate", "3e-4"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, given), "--dry_run"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    values = yaml.safe_load(done.stdout)
    assert (values["method"], values["forget_class"], values["learning_rate"]) == ("sfron", ["two", "one"], 3e-4)
    assert values["lr_scheduler"] == "cosine" and not (tmp_path / "never").exists()
    assert not any("token" in name and name.startswith("hub") for name in values)


def test_push(hub, tmp_path, paths, run):
    """One repository, one upload of the result and nothing else of the folder; what fails can be done later."""
    out = tmp_path / "out"
    push = ["--push_to_hub", "--hub_model_id", "without-two", "--hub_token", TOKEN, "--save_strategy", "steps"]
    given = [*flags(paths, out), "--forget_class", "two", *push, "--save_steps", "1", "--use_mask", "true"]
    hub.fail("POST", "/commit/")
    code, output, error = run(*given)
    line = error.splitlines()[-1]
    assert code == 2 and f"The result is in {out}: hf-unlearn publish {out} user/without-two" in line, error
    assert hub.files("user/without-two") == {} and (out / "model.safetensors").is_file()
    code, output, error = run(*given)
    assert code == 0 and f"{hub.url}/user/without-two\n" in output, error
    names = {"README.md", "config.json", "figures.json", "figures.md", "model.safetensors", "preprocessor_config.json"}
    assert set(hub.files("user/without-two")) == names | {"unlearning_report.json", "verdict.svg"}
    assert hub.files("user/without-two")["model.safetensors"] == (out / "model.safetensors").read_bytes()
    assert (out / "checkpoint-2/masks.safetensors").is_file() and not hub.repos["user/without-two"].private
    assert len(hub.seen("POST", "/create")) == 4 and len(hub.seen("POST", "/commit/")) == 2
    assert TOKEN not in output + error


def test_printed_config_is_read_back(tmp_path, paths, run):
    given = [*flags(paths, tmp_path / "never"), "--forget_class", "two", "--dry_run"]
    first = run(*given)[1]
    (tmp_path / "again.yaml").write_text(first)
    code, again, error = run("--config", tmp_path / "again.yaml")
    assert code == 0 and yaml.safe_load(again) == yaml.safe_load(first), error
