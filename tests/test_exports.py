"""What benchmarks read of a run: names and prompts of UnlearnCanvas, a configuration of eval-unlearn."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from conftest import tiny_sd
from diffusers import DiffusionPipeline
from pipeline_cases import tiny_sd3
from records import run_record

from hf_unlearn import TextToImage, add_lora, encode_prompts
from hf_unlearn.cli import exports
from hf_unlearn.cli.commands.report import report_command
from hf_unlearn.cli.exports import OBJECTS, STYLES, export_run, pipeline_of, theme_of
from hf_unlearn.report.reading import read_record
from hf_unlearn.saliency.ranks import choose_lora
from hf_unlearn.saving.adapters import save_adapter

BASE = {"name": "base", "revision": None, "on_hub": False, "licence": {}}
ANCHORS = {"anchors": [["a cat in Van Gogh style", "a cat"], ["a dog in Van Gogh style", "a dog"]]}
DETAILS = {"num_inference_steps": 7, "guidance_scale": 2.5}
FIGURES = {"after": {"forget_accuracy": {"value": 0, "definition": "d", "samples": 9, "details": DETAILS}}}


def a_run(folder, forgotten: str = "artist style:Van Gogh", **changes):
    fields = dict(pipeline_tag="text-to-image", per_class=[], base_model=BASE, objective=ANCHORS, figures=FIGURES)
    tiny_sd(1).save_pretrained(folder)
    run_record(forgotten=forgotten, **{**fields, **changes}).write(folder)
    return folder


def test_the_lists_are_the_benchmark_s():
    assert len(STYLES) == 51 and len(OBJECTS) == 20 and len(set(STYLES)) == 51  # 50 styles and photographs
    assert STYLES[0] == "Abstractionism" and "Seed_Images" in STYLES and STYLES[-1] == "Winter"


@pytest.mark.parametrize(
    ("words", "theme"),
    [("artist style:Van Gogh", "Van_Gogh"), ("dogs", "Dogs"), ("a red car!", "a_red_car"), ("../x", "x"), ("…", None)],
)
def test_the_theme_is_a_name(words, theme):
    assert theme_of(run_record(forgotten=words)) == (theme or "forgotten")


def test_images_of_unlearncanvas(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(exports, "STEPS", 2)
    run, out = a_run(tmp_path / "run"), tmp_path / "out"
    words = ["--seeds", "188", "288", "--styles", "Van_Gogh", "Ink_Art", "--objects", "Dogs"]
    report_command([str(run), "--export", "unlearncanvas", str(out), *words])
    said = capsys.readouterr().out
    assert f"--theme Van_Gogh --input_dir {out}" in said and not (run / "report.html").exists()
    names = {f"{style}_Dogs_seed{seed}.jpg" for style in ("Van_Gogh", "Ink_Art") for seed in (188, 288)}
    assert {path.name for path in (out / "Van_Gogh").iterdir()} == names
    pipeline = tiny_sd(1)
    made = pipeline(
        "A Dogs image in Ink Art style.",
        num_inference_steps=2,
        guidance_scale=9.0,
        generator=torch.Generator().manual_seed(288),
    ).images[0]
    again = io.BytesIO()
    made.save(again, "JPEG", quality=95)
    assert (out / "Van_Gogh/Ink_Art_Dogs_seed288.jpg").read_bytes() == again.getvalue()
    assert (out / "Van_Gogh/Ink_Art_Dogs_seed188.jpg").read_bytes() != again.getvalue()
    kept = out / "Van_Gogh/Van_Gogh_Dogs_seed188.jpg"
    kept.write_bytes(b"there already")
    report_command([str(run), "--export", "unlearncanvas", str(out), *words])
    assert kept.read_bytes() == b"there already"


def test_a_configuration_of_eval_unlearn(tmp_path):
    run, out = a_run(tmp_path / "run"), tmp_path / "out"
    assert export_run("eval-unlearn", run, out) == f"eval-unlearn run --config {out / 'config.json'}"
    config = json.loads((out / "config.json").read_text())
    assert set(config) == {"technique", "metrics", "output_dir"}  # what its runner asks for
    technique = config["technique"]
    assert technique["name"] == "free_run" and technique["config"] == {"model_id": str(run.resolve()), **DETAILS}
    DiffusionPipeline.from_pretrained(technique["config"]["model_id"])  # as free_run loads it
    ua_ira = {metric["name"]: metric["config"] for metric in config["metrics"]}["ua_ira"]
    assert ua_ira["target_concept"] == "artist style:Van Gogh" and ua_ira["retain_concept"] == "a cat"
    for key, expected in (("target", [a for a, _ in ANCHORS["anchors"]]), ("retain", ["a cat", "a dog"])):
        with open(ua_ira[f"{key}_prompts_path"], newline="") as file:
            assert [row["prompt"] for row in csv.DictReader(file)] == expected
    assert [metric["name"] for metric in config["metrics"]] == ["ua_ira", "clip_score"]
    export_run("eval-unlearn", a_run(tmp_path / "unsafe", "nudity"), tmp_path / "other")
    names = [m["name"] for m in json.loads((tmp_path / "other/config.json").read_text())["metrics"]]
    assert names == ["ua_ira", "clip_score", "asr_i2p"]


@pytest.mark.parametrize("tiny", [tiny_sd, tiny_sd3])
def test_an_adapter_is_merged_into_a_pipeline_that_loads_alone(tmp_path, tiny):
    """Of a UNet and of a transformer."""
    pipeline = tiny(0)
    pipeline.save_pretrained(tmp_path / "base")
    objective = TextToImage(pipeline, encode_prompts(pipeline, ["a cat", "a dog"]), {"a cat": "a dog"})
    add_lora(objective, choose_lora(objective, None, None, "all", rank=2))
    for name, p in objective.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(0))
    save_adapter(objective, tmp_path / "run")
    fields = dict(pipeline_tag="text-to-image", library_name="peft", per_class=[], base_model=BASE, objective=ANCHORS)
    run_record(forgotten="a cat", figures=FIGURES, **fields).write(tmp_path / "run")
    export_run("eval-unlearn", tmp_path / "run", tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())["technique"]["config"]
    assert config["model_id"] == str((tmp_path / "out/model").resolve())

    def drawn(made) -> np.ndarray:
        made.set_progress_bar_config(disable=True)
        options = dict(num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np")
        return made("a cat", **options).images

    merged = drawn(DiffusionPipeline.from_pretrained(config["model_id"], safety_checker=None))
    attached = drawn(pipeline_of(read_record(tmp_path / "run"), tmp_path / "run"))
    assert merged == pytest.approx(attached, abs=1e-4) and merged != pytest.approx(drawn(tiny(0)), abs=1e-3)


def test_what_cannot_be_exported(tmp_path, capsys):
    run = a_run(tmp_path / "run", objective={"anchors": [["x", ""]]})
    run_record().write(tmp_path)
    for kind, folder, options, problem in (
        ("other", run, {}, "is none of unlearncanvas, eval-unlearn"),
        ("unlearncanvas", tmp_path, {}, "this run is a unconditional-image-generation model"),
        ("unlearncanvas", run, {"styles": ["Baroque"]}, "Baroque is no style of UnlearnCanvas"),
        ("eval-unlearn", run, {}, "names no forgotten prompt with an anchor"),
    ):
        with pytest.raises(ValueError, match=problem):
            export_run(kind, folder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        report_command([str(run), "--seeds", "1"])
    assert "--seeds is for --export" in capsys.readouterr().err
