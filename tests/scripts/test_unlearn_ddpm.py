"""scripts/unlearn_ddpm.py as a user types it: the default run, other data, and one line for every bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import tiny_unet
from diffusers import DDPMPipeline, DDPMScheduler
from hub_server import READER, TOKEN
from huggingface_hub import ModelCard
from PIL import Image

from hf_unlearn import METHODS, load_adapter, load_ddpm_pipeline
from hf_unlearn.cli.parsing import fitting
from hf_unlearn.data import streaming
from hf_unlearn.evaluation import DIGITS_DDPM
from hf_unlearn.report.card_text import card_table
from hf_unlearn.report.reading import read_record

SCRIPT = Path(__file__).parents[2] / "scripts" / "unlearn_ddpm.py"
PLAIN = ["--max_train_steps", "2", "--train_batch_size", "8", "--eval_samples_per_class", "4"]
FAST = [*PLAIN, "--fisher_samples", "8"]


def run(*arguments: str, expect: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


@pytest.fixture
def error(run_script):
    """The one line of a refused call."""

    def call(*arguments: str) -> str:
        code, _, text = run_script(SCRIPT, *arguments)
        lines = [line for line in text.splitlines() if "error:" in line]
        assert code == 2 and len(lines) == 1 and "Traceback" not in text, text
        return lines[0]

    return call


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory) -> Path:
    """Two classes of four grey 8x8 images."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / label).mkdir()
        for i in range(4):
            pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory) -> Path:
    unet = tiny_unet(None)
    folder = tmp_path_factory.mktemp("unconditional")
    DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=1000)).save_pretrained(folder)
    return folder


def test_default_run_ends_in_table_picture_card_and_a_pipeline(tmp_path):
    done = run(*FAST, "--output_dir", tmp_path / "out")
    for row in ("before", "after", "retrained"):
        assert f"| {row}" in done.stdout
    figures = json.loads((tmp_path / "out/figures.json").read_text())
    assert figures["before"]["per_class"]["3"] == 1.0 and set(figures) == {"before", "after", "retrained"}
    record = read_record(tmp_path / "out")
    assert record.value("before", "forget_accuracy") == 1.0 and record.training.outer_steps == 2
    assert [row.forget for row in record.per_class] == [digit == 3 for digit in range(10)]
    assert record.per_class[3].before == 1.0 and record.per_class[3].name == "3"
    width, height = Image.open(tmp_path / "out/before_after.png").size
    assert width > 1000 and height > 300
    assert [e.forgotten for e in record.history] == ["class 3"] and record.base_model.name == "digits_ddpm"
    samples = {name: metric.samples for name, metric in record.figures["after"].items()}
    read = {"forget_accuracy": 4, "retain_accuracy": 36}
    other = {f"{name}_ddpm": count for name, count in read.items()}  # under a second sampler
    progress = {"forget_progress": 64, "retain_drift": 64}
    assert samples == {**read, "frechet_distance": 36, **other, **progress}
    assert "4 forgotten samples are measured, fewer than 30" in done.stdout and "(DDPM)" in done.stdout
    card = ModelCard.load(tmp_path / "out/README.md")
    assert card_table(record) in card.text and "method:sfron" in card.data.tags
    assert card.data.license == "apache-2.0" and card.data.base_model is None  # the shipped model is not on the Hub
    plain = (
        "import sys; from diffusers import UNet2DModel;"
        f"UNet2DModel.from_pretrained({str(tmp_path / 'out')!r}, subfolder='unet');"
        "assert 'hf_unlearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", plain], check=True)


@pytest.mark.long  # by default tests/faults and tests/test_trainer.py resume runs
def test_resume_is_the_straight_run(tmp_path):
    common = [*FAST, "--max_train_steps", "4", "--eval_samples_per_class", "0"]
    run(*common, "--output_dir", tmp_path / "straight", "--checkpointing_steps", "2")
    resume = ["--resume_from_checkpoint", tmp_path / "straight/checkpoint-2"]
    run(*common, "--output_dir", tmp_path / "resumed", *resume)
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "straight" / weights).read_bytes() == (tmp_path / "resumed" / weights).read_bytes()


def test_forget_a_folder_of_images_of_an_unconditional_model(
    tmp_path, image_folder, unconditional, run_script, monkeypatch
):
    monkeypatch.setattr(streaming, "LOSSES_OF", 3)
    model = ["--pretrained_model_name_or_path", unconditional, "--train_data_dir", image_folder / "dog"]
    forget = ["--forget_data_dir", image_folder / "cat"]
    words = (*FAST, *model, *forget, "--output_dir", tmp_path / "out", "--num_inference_steps", "2")
    code, output, error = run_script(SCRIPT, *words)
    assert code == 0 and "forget loss" in output, error
    figures = json.loads((tmp_path / "out/figures.json").read_text())
    assert figures["after"]["forget"] != figures["before"]["forget"]
    record = read_record(tmp_path / "out")
    assert record.value("after", "forget_loss") == figures["after"]["forget"]
    assert record.data["forget"].source == "cat" and record.data["forget"].samples == 4
    assert {record.figures["after"][f"{part}_loss"].samples for part in ("forget", "retain")} == {3}
    assert (tmp_path / "out/before_after.png").exists()


def test_an_adapter_is_all_that_is_saved_and_its_strengths_are_shown(tmp_path):
    run(*FAST, "--use_lora", "--rank", "2", "--num_inference_steps", "3", "--output_dir", tmp_path)
    assert not (tmp_path / "unet").exists()
    record = read_record(tmp_path)
    assert record.library_name == "peft" and record.adapter.rank == 2 and not record.adapter.merged
    assert "PeftModel.from_pretrained" in (tmp_path / "README.md").read_text()
    pipeline = load_ddpm_pipeline(str(DIGITS_DDPM))
    load_adapter(pipeline, tmp_path)
    width, height = Image.open(tmp_path / "strengths.png").size
    assert width > 1000 and height > 900


OTHERS = sorted(set(fitting(("diffusion",))) - {"sfron"})
QUICK = ("esd", "ssd")  # one that trains and one that only edits; tests/parity runs every method


@pytest.mark.parametrize("method", [m if m in QUICK else pytest.param(m, marks=pytest.mark.long) for m in OTHERS])
def test_other_methods(tmp_path, run_script, method):
    code, output, error = run_script(SCRIPT, *PLAIN, "--method", method, "--output_dir", tmp_path / "out")
    assert code == 0 and "| after" in output, error
    record = read_record(tmp_path / "out")
    assert (record.method.name, record.training.outer_steps) == (method, 2 if METHODS[method].trains else 0)
    assert record.value("before", "forget_accuracy") == 1.0


def test_dry_run_prints_a_config_that_can_be_given_back(tmp_path, run_script):
    given = ("--dry_run", "--preset", "paper", "--slow_rate", "0.7", "--output_dir", tmp_path / "never")
    code, first, error = run_script(SCRIPT, *given)
    assert code == 0, error
    values = yaml.safe_load(first)
    assert (values["method"], values["preset"], values["forget_loss"]) == ("sfron", "paper", "ascent")
    assert values["slow_rate"] == 0.7 and not (tmp_path / "never").exists()
    (tmp_path / "again.yaml").write_text(first)
    assert yaml.safe_load(run_script(SCRIPT, "--config", tmp_path / "again.yaml")[1]) == values


def test_yaml_is_overridden_by_flags_and_reads_numbers(tmp_path, run_script):
    (tmp_path / "c.yaml").write_text("learning_rate: 1e-4\nforget_class: 5\nseed: 3\n")
    values = yaml.safe_load(run_script(SCRIPT, "--config", tmp_path / "c.yaml", "--seed", "4", "--dry_run")[1])
    assert (values["learning_rate"], values["forget_class"], values["seed"]) == (1e-4, ["5"], 4)


def test_bad_input_is_one_line_and_writes_nothing(tmp_path, image_folder, unconditional, error):
    out = ["--output_dir", tmp_path / "out"]
    (tmp_path / "bad.yaml").write_text("leraning_rate: 1\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("not a folder")
    model = ["--pretrained_model_name_or_path", unconditional]
    cases = {
        "class 12 is not in the data": ["--forget_class", "12"],
        "unknown key 'leraning_rate'": ["--config", tmp_path / "bad.yaml"],
        "cannot be read": ["--config", tmp_path / "missing.yaml"],
        "method 'magic' is not one of": ["--method", "magic"],
        "preset 'best' is not one of": ["--preset", "best"],
        "unrecognized arguments": ["--leraning_rate", "1"],
        "must lie in (0, 1]": ["--slow_rate", "0"],
        "no data: set": [*model],
        "no image and no parquet file in": [
            *model,
            "--train_data_dir",
            image_folder,
            "--forget_data_dir",
            tmp_path / "empty",
        ],
        "are in both the forget and the retain set": [
            *model,
            *("--train_data_dir", image_folder, "--forget_data_dir", image_folder / "cat"),
        ],
        "say what to forget with one of": [*model, "--train_data_dir", image_folder],
        "is not in the data, which has": [
            *model,
            *("--train_data_dir", image_folder, "--image_column", "picture", "--forget_class", "0"),
        ],
        "needs a model with labels": [
            *model,
            *("--train_data_dir", image_folder / "dog", "--forget_data_dir", image_folder / "cat"),
            *("--forget_loss", "match"),
        ],
        "the model takes 8x8": ["--train_data_dir", image_folder, "--forget_class", "0", "--resolution", "16"],
        "are out of range: the data has": ["--forget_indices", "99999"],
        "does not exist or is not one": ["--resume_from_checkpoint", tmp_path / "nowhere"],
        "no checkpoint in": ["--resume_from_checkpoint", "latest"],
        "not a readable mask file": ["--mask_path", tmp_path / "file"],
        "set gradient_accumulation_steps=1": ["--gradient_accumulation_steps", "2"],
        "must be at least 1": ["--max_train_steps", "0"],
        "model_index.json": [
            *("--pretrained_model_name_or_path", tmp_path / "empty"),
            *("--train_data_dir", image_folder, "--forget_class", "0"),
        ],
    }
    for message, arguments in cases.items():
        line = error(*arguments, *out)
        assert message in line, f"{arguments}: {line}"
        assert not (tmp_path / "out/unet").exists()
    line = error("--output_dir", tmp_path / "file")
    assert "cannot be written" in line and (tmp_path / "file").read_text() == "not a folder"


def test_push(hub, tmp_path, image_folder, unconditional, run_script):
    """Masks because they are asked for; never checkpoints, logs, a token."""
    out = tmp_path / "out"
    model = ["--pretrained_model_name_or_path", unconditional, "--num_inference_steps", "2"]
    data = ["--train_data_dir", image_folder / "dog", "--forget_data_dir", image_folder / "cat"]
    flags = ["--push_to_hub", "--hub_model_id", "user/without-3", "--hub_private_repo", "--hub_token", TOKEN]
    kept = ["--push_masks", "--checkpointing_steps", "1", "--report_to", "tensorboard", "--output_dir", out]
    code, output, error = run_script(SCRIPT, *FAST, *model, *data, *flags, *kept)
    assert code == 0 and f"{hub.url}/user/without-3\n" in output, error
    weights = "unet/diffusion_pytorch_model.safetensors"
    settings = {"model_index.json", "unet/config.json", "scheduler/scheduler_config.json"}
    shown = {"README.md", "verdict.svg", "figures.json", "before_after.png", "unlearning_report.json"}
    assert {*settings, *shown, weights, "masks.safetensors"} == set(hub.files("user/without-3")) - {"figures.md"}
    assert hub.files("user/without-3")[weights] == (out / weights).read_bytes() and hub.repos["user/without-3"].private
    assert b'from_pretrained("user/without-3"' in hub.files("user/without-3")["README.md"]
    assert (out / "checkpoint-2").is_dir() and list(out.rglob("events.out.tfevents*"))
    assert TOKEN not in output + error
    assert not any(path.is_file() and TOKEN.encode() in path.read_bytes() for path in out.rglob("*"))


def test_a_wrong_token_costs_nothing(hub, tmp_path, error, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READER)
    push = ["--push_to_hub", "--hub_model_id", "user/x", "--pretrained_model_name_or_path", tmp_path / "no-model"]
    push += ["--dataset_name", "user/images", "--forget_class", "0"]
    assert "may not write to user/x (403)" in error(*push, "--output_dir", tmp_path / "out")
    assert "does not know the token (401)" in error(
        *push, "--hub_token", READER[::-1], "--output_dir", tmp_path / "out"
    )
    assert "no Hub id" in error("--push_to_hub", "--output_dir", tmp_path / "two words")
    assert "set push_to_hub too" in error("--push_masks", "--output_dir", tmp_path / "out")
    line = error("--hub_token", TOKEN, "--report_to", "wandb", "--output_dir", tmp_path / "out")
    assert "report_to=wandb, which may record the command line" in line and TOKEN not in line


def test_masks_of_another_model_are_refused(tmp_path, error):
    import torch
    from safetensors.torch import save_file

    save_file({"conv_in.weight": torch.ones(24, 1, 3, 3, dtype=torch.bool)}, tmp_path / "masks.safetensors")
    assert "do not belong to this model" in error("--mask_path", tmp_path / "masks.safetensors")
