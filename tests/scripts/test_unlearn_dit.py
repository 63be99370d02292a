"""scripts/unlearn_dit.py on a tiny DiT: latents once, a picture, and one line for bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_dit, tiny_sd
from diffusers import DiTPipeline
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "scripts" / "unlearn_dit.py"
QUICK = ["--max_train_steps", "2", "--num_inference_steps", "2", "--train_batch_size", "4", "--fisher_samples", "8"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A DiT of four classes, and eight 8x8 images in two of them."""
    model, images = tmp_path_factory.mktemp("dit"), tmp_path_factory.mktemp("images")
    tiny_dit().save_pretrained(model)
    generator = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (images / label).mkdir()
        for i in range(4):
            Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(images / label / f"{i}.png")
    return model, images


def test_a_class_is_forgotten_and_latents_are_encoded_once(folders, tmp_path, run_script):
    model, images = folders
    command = ["--pretrained_model_name_or_path", model, "--train_data_dir", images, "--forget_class", "1", *QUICK]
    cache = ["--cache_dir", tmp_path / "cache", "--random_flip"]
    code, text, error = run_script(SCRIPT, *command, *cache, "--output_dir", tmp_path / "a")
    assert code == 0 and "| after" in text, error
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.safetensors")}
    assert len(made) == 4  # two sets, two flips
    run_script(SCRIPT, *command, *cache, "--output_dir", tmp_path / "b", "--learning_rate", "1e-3")
    assert made == {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.safetensors")}
    assert np.asarray(Image.open(tmp_path / "a/before_after.png")).std() > 5
    record = json.loads((tmp_path / "a/unlearning_report.json").read_text())
    assert record["family"] == "DiTPrediction" and record["data"]["forget"]["source"] == images.name
    assert record["history"][0]["forgotten"] == "class dog (number 1)" and record["base_model"]["name"] == model.name
    assert 'DiTPipeline.from_pretrained("b")' in (tmp_path / "b/README.md").read_text()
    DiTPipeline.from_pretrained(str(tmp_path / "b"))


def test_bad_input_is_one_line(folders, tmp_path, run_script):
    model, images = folders
    tiny_sd().save_pretrained(tmp_path / "sd")
    known = ["--pretrained_model_name_or_path", model, "--train_data_dir", images]
    for arguments, message in (
        ([], "no model: set --pretrained_model_name_or_path"),
        (
            ["--pretrained_model_name_or_path", tmp_path / "sd", *known[2:], "--forget_class", "1"],
            "is a StableDiffusionPipeline: give a DiTPipeline",
        ),
        (known[:2], "no data: set --train_data_dir"),
        (known, "say what to forget"),
        ([*known, "--forget_class", "7"], "class 7 is not in the data"),
    ):
        code, _, error = run_script(SCRIPT, *QUICK, *arguments, "--output_dir", tmp_path / "out")
        lines = [line for line in error.splitlines() if "error:" in line]
        assert code == 2 and len(lines) == 1 and message in lines[0] and "Traceback" not in error, (arguments, error)
