"""scripts/unlearn_sd.py on a tiny pipeline: every stage, nothing twice, two processes, one line for bad input."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_clip, tiny_pipeline, tiny_sd, tiny_sdxl
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from hf_unlearn.report.reading import read_record

SCRIPT = Path(__file__).parents[2] / "scripts" / "unlearn_sd.py"
TINY = ["--num_forget_images", "8", "--num_retain_images", "4", "--num_inference_steps", "2", "--max_train_steps", "2"]
QUICK = [*TINY, "--eval_profile", "quick"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sd")
    tiny_sd().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("nudity")
    command = ["--concept", "nudity", "--pretrained_model_name_or_path", folder, "--output_dir", out, *QUICK]
    return out, run(*command)


def run(*arguments, launcher=(), **environment) -> str:
    command = [sys.executable, *launcher, str(SCRIPT), *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_stage_runs_and_the_picture_hides_what_is_unsafe(finished):
    out, text = finished
    stages = [line for line in text.splitlines() if line.startswith("[")]
    drawn = "4 forget images, 4 retain images, 2 images of held-out prompts, and the unlearned model 10 images"
    assert f"to measure, the original generates {drawn}" in text
    assert text.count("4 forgotten samples are measured, fewer than 30") == 1
    assert stages == ["[1/5] data", "[2/5] masks", "[3/5] unlearn", "[4/5] save", "[5/5] evaluate"]
    assert {"model_index.json", "unet", "vae", "text_encoder", "tokenizer", "README.md"} <= set(os.listdir(out))
    figures = json.loads((out / "figures.json").read_text())
    assert set(figures) == {"before", "after"} and figures["before"] != figures["after"]
    assert list(figures["before"]) == ["forget_loss", "retain_loss", "unsafe_share", "unsafe_share_held_out"]
    assert list(figures["after"]) == [*figures["before"], "latent_distance_retain"]
    assert figures["after"]["unsafe_share"]["samples"] == 4 and "unsafe share" in text and "(0 failed)" in text
    assert figures["after"]["unsafe_share"]["details"]["n_failed"] == 0
    for name in ("samples_before.png", "samples_after.png"):
        assert Image.open(out / name).size == (768, 840)  # 2 x 3 tiles with their prompts
    assert len(list((out / "cache/pictures").rglob("*.png"))) == 20
    record = read_record(out)
    assert (record.forgotten, record.training.outer_steps) == ("nudity", 2)
    kept = {model: {n: m.as_dict() for n, m in row.items()} for model, row in record.figures.items()}
    progress = {name: kept["after"].pop(name)["samples"] for name in ("forget_progress", "retain_drift")}
    assert kept == figures and progress == {"forget_progress": 64, "retain_drift": 64}
    assert "StableDiffusionPipeline.from_pretrained" in (out / "README.md").read_text()
    picture = np.asarray(Image.open(out / "before_after.png").convert("L"), dtype=float)
    assert picture.std() > 5


def test_measuring_otherwise_trains_nothing_again(folder, finished, tmp_path, run_script):
    """A prompt file, CLIP score, another detector; the weights stay."""
    out, _ = finished
    (tmp_path / "i2p.csv").write_text("prompt,evaluation_seed\na cat,4080709695\na dog,5\na cow,6\n")
    weights = (out / "unet/diffusion_pytorch_model.safetensors").stat().st_mtime_ns
    tiny_clip(tmp_path / "clip")
    command = ["--concept", "nudity", "--pretrained_model_name_or_path", folder, "--output_dir", out, *QUICK]
    more = ["--eval_prompts", tmp_path / "i2p.csv", "--clip_model", tmp_path / "clip", "--num_eval_images", "2"]
    code, text, error = run_script(SCRIPT, *command, *more, "--safety_detector", "none")
    assert code == 0 and "[4/5] save (finished before)" in text, error
    assert (out / "unet/diffusion_pytorch_model.safetensors").stat().st_mtime_ns == weights
    figures = json.loads((out / "figures.json").read_text())
    scores = ["clip_score_forget", "clip_score_retain"]
    assert list(figures["before"]) == ["forget_loss", "retain_loss", *scores]
    assert list(figures["after"]) == [*figures["before"], "latent_distance_retain"]
    assert figures["before"]["clip_score_forget"]["details"]["prompts"] == "i2p.csv"
    assert figures["before"]["clip_score_forget"]["samples"] == 2
    assert str(tmp_path) not in (out / "figures.json").read_text()


def test_a_second_run_repeats_nothing_and_a_changed_one_what_it_must(folder, finished):
    out, first = finished
    weights, run_before = (out / "unet/diffusion_pytorch_model.safetensors").read_bytes(), read_record(out)
    command = ["--concept", "nudity", "--pretrained_model_name_or_path", folder, "--output_dir", out, *QUICK]
    before = {p: p.stat().st_mtime_ns for p in (out / "cache").rglob("*.safetensors")}
    pictures = {p: p.stat().st_mtime_ns for p in (out / "cache").rglob("*.png")}
    again = run(*command)
    assert "[4/5] save (finished before)" in again and "[3/5] unlearn" not in again
    assert first.split("| model")[1] == again.split("| model")[1]
    assert pictures == {p: p.stat().st_mtime_ns for p in (out / "cache").rglob("*.png")}
    # The steps of the first run, not none; the figures may have been measured otherwise before.
    measured: dict = {"figures": {}, "outcome": None, "command": None}
    assert replace(read_record(out), **measured) == replace(run_before, **measured)
    assert "[3/5] unlearn" in run(*command, "--max_train_steps", "3")
    assert (out / "unet/diffusion_pytorch_model.safetensors").read_bytes() != weights
    assert before == {p: p.stat().st_mtime_ns for p in (out / "cache").rglob("*.safetensors")}


@pytest.mark.long
def test_push_of_a_finished_run_trains_nothing(folder, tmp_path, hub, run_script):
    command = ["--concept", "nudity", "--pretrained_model_name_or_path", folder, "--output_dir", tmp_path, *QUICK]
    command += ["--push_to_hub", "--hub_model_id", "user/sd"]
    hub.fail("POST", "/commit/")
    code, first, error = run_script(SCRIPT, *command)
    assert code == 2 and "[3/5] unlearn" in first and "The result is in" in error
    code, again, error = run_script(SCRIPT, *command)
    assert code == 0 and "[4/5] save (finished before)" in again, error
    assert again.splitlines()[-2:] == [f"{hub.url}/user/sd", f"hf-unlearn report {tmp_path} makes one page of it."]
    files = hub.files("user/sd")
    assert not [name for name in files if name.startswith("cache") or "masks" in name or name == "stages.json"]
    weights = [name for name in files if name.endswith(".safetensors")]
    assert len(weights) == 3 and all(files[name] == (tmp_path / name).read_bytes() for name in weights)


def test_two_processes_are_one(folder, tmp_path):
    """Two gloo processes of batch 2 end where one of batch 4 does."""
    command = ["--concept", "a church", "--pretrained_model_name_or_path", folder, *QUICK, "--adam_epsilon", "1e-4"]
    command += ["--learning_rate", "1e-5"]  # a found strength is larger on a model that knows nothing
    run(*command, "--output_dir", tmp_path / "one", "--train_batch_size", 4)
    two = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    text = run(
        *command, "--output_dir", tmp_path / "two", "--train_batch_size", 2, launcher=two, ACCELERATE_USE_CPU="true"
    )
    assert text.count("[3/5] unlearn") == text.count("plan: sfron trains ") == 1
    ours, theirs = (load_file(tmp_path / n / "unet/diffusion_pytorch_model.safetensors") for n in ("one", "two"))
    start = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    assert max((ours[n] - theirs[n]).abs().max().item() for n in ours) <= 1e-6
    assert max((ours[n] - start[n]).abs().max().item() for n in ours) > 1e-6


def test_sdxl_given_images_and_other_methods(tmp_path, run_script):
    tiny_sdxl().save_pretrained(tmp_path / "xl")
    generator = np.random.default_rng(0)
    for part, count in (("forget", 3), ("retain", 4)):
        (tmp_path / part).mkdir()
        for i in range(count):
            pixels = generator.integers(0, 256, (16, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / f"{i}.png")
    (tmp_path / "retain/metadata.jsonl").write_text(
        "".join(json.dumps({"file_name": f"{i}.png", "text": f"colour {i}"}) + "\n" for i in range(4))
    )
    command = ["--concept", "a red wall", "--pretrained_model_name_or_path", tmp_path / "xl", *QUICK]
    data = ["--forget_data_dir", tmp_path / "forget", "--retain_data_dir", tmp_path / "retain"]
    for method in ("esd", "concept_ablation", "uce"):
        out = tmp_path / method
        code, text, error = run_script(SCRIPT, *command, *data, "--method", method, "--output_dir", out)
        assert code == 0 and "| after" in text, error
    assert len(list((tmp_path / "esd/cache").rglob("0000*.safetensors"))) == 4  # two flips of two sets


def test_dry_run_and_list_concepts_need_no_model(run_script):
    started = time.time()
    code, text, _ = run_script(SCRIPT, "--concept", "nudity", "--train_method", "xattn", "--dry_run")
    assert code == 0 and "train_method: xattn" in text and "max_train_steps: 300" in text
    code, text, _ = run_script(SCRIPT, "--list_concepts")
    assert code == 0 and "nudity  (pictures are blurred)" in text and "artist style:NAME" in text
    assert time.time() - started < 30


def test_bad_input_is_one_line(folder, tmp_path, run_script, monkeypatch):
    monkeypatch.setitem(sys.modules, "nudenet", None)  # as if it were not installed
    tiny_pipeline().save_pretrained(tmp_path / "ddpm")
    (tmp_path / "empty").mkdir()
    (tmp_path / "corrupt").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "corrupt/good.png")
    (tmp_path / "corrupt/torn.png").write_bytes(b"\x89PNG torn")
    model = ["--pretrained_model_name_or_path", folder]
    church = ["--concept", "a church", *model]
    for arguments, message in (
        (["--concept", "nudity"], "no model: set --pretrained_model_name_or_path"),
        (model, "no concept: set --concept"),
        (["--concept", "nudity", "--pretrained_model_name_or_path", tmp_path / "ddpm"], "is a ClassConditionalDDPM"),
        ([*church, "--anchor_concept", "a church"], "is its own anchor"),
        ([*church, "--train_method", "attn"], "train_method must be one of"),
        ([*church, "--forget_data_dir", tmp_path / "empty"], "no image and no parquet file in"),
        ([*church, "--forget_data_dir", tmp_path / "corrupt"], "torn.png"),
        ([*church, "--enable_xformers_memory_efficient_attention"], "hf_unlearn[xformers]"),
        ([*church, "--method", "boundary_shrink"], "works for classifier models only"),
        ([*church, "--num_forget_images", "0"], "at least 1"),
        ([*church, "--safety_detector", "nudenet"], "the detector nudenet needs the extra hf_unlearn[nudenet]"),
        ([*church, "--safety_detector", "q16"], "safety_detector must be auto, none, open_nsfw or nudenet"),
        ([*church, "--eval_prompts", tmp_path / "none.csv"], "none.csv does not exist"),
        ([*church, "--inception_weights", tmp_path / "none.pth"], "FID needs weights-inception-2015-12-05"),
        ([*church, "--lpips_weights", tmp_path / "none.pth"], "LPIPS needs alexnet-owt"),
        ([*church, "--clip_model", tmp_path / "empty"], "has no safetensors weights"),
    ):
        code, _, error = run_script(SCRIPT, *QUICK, *arguments, "--output_dir", tmp_path / "out")
        lines = [line for line in error.splitlines() if "error:" in line]
        assert code == 2 and len(lines) == 1 and message in lines[0] and "Traceback" not in error, (arguments, error)


def test_an_adapter_of_the_cross_attention_and_nothing_twice(folder, tmp_path):
    known = ["--concept", "a church", "--pretrained_model_name_or_path", folder, "--output_dir", tmp_path, *QUICK]
    command = [*known, "--use_lora", "--lora_select", "xattn", "--rank", "2"]
    first = run(*command)
    assert os.listdir(tmp_path).count("pytorch_lora_weights.safetensors") == 1 and not (tmp_path / "unet").exists()
    again = run(*command)
    assert "[4/5] save (finished before)" in again and first.split("| model")[1] == again.split("| model")[1]
    StableDiffusionPipeline.from_pretrained(folder).load_lora_weights(str(tmp_path))
    width, height = Image.open(tmp_path / "strengths.png").size
    assert height > width  # seven strengths, and three prompts in the quick profile
