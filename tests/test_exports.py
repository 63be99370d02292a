"""What others read of a run: one file, an adapter in kohya's form, names and prompts of UnlearnCanvas, a configuration
of eval-unlearn."""

import csv
import io
import itertools
import json

import diffusers
import numpy as np
import pytest
import torch
from conftest import tiny_sd, tiny_sdxl
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from packaging.version import Version
from peft import LoraConfig
from pipeline_cases import tiny_sd3
from records import run_record
from safetensors.torch import load_file

from hf_unlearn import TextToImage, add_lora, encode_prompts
from hf_unlearn.cli import exports
from hf_unlearn.cli.commands.export import export_command
from hf_unlearn.cli.commands.report import report_command
from hf_unlearn.cli.exports import OBJECTS, STYLES, export_run, pipeline_of, theme_of
from hf_unlearn.evaluation.emoji import EMOJI_SD
from hf_unlearn.report.reading import read_record
from hf_unlearn.saliency.ranks import lora_layers
from hf_unlearn.saving.adapters import save_adapter, tuner_layers
from hf_unlearn.saving.kohya import kohya_state

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


def an_adapter(folder, tiny=tiny_sd, ranks=(2,), scale: float = 1.0):
    """Save a base pipeline, and a run that is an adapter of it whose layers take ranks in turn. Return the base."""
    pipeline = tiny(0)
    pipeline.save_pretrained(folder / "base")
    objective = TextToImage(pipeline, encode_prompts(pipeline, ["a cat", "a dog"]), {"a cat": "a dog"})
    layers = list(lora_layers(objective.network, "all"))
    of = dict(zip(layers, itertools.cycle(ranks), strict=False)) if len(ranks) > 1 else {}
    patterns = {"rank_pattern": of, "alpha_pattern": {name: scale * rank for name, rank in of.items()}}
    add_lora(objective, LoraConfig(r=ranks[0], lora_alpha=scale * ranks[0], target_modules=layers, **patterns))
    for name, p in objective.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(0))
    save_adapter(objective, folder / "run")
    fields = dict(pipeline_tag="text-to-image", library_name="peft", per_class=[], base_model=BASE, objective=ANCHORS)
    run_record(forgotten="a cat", figures=FIGURES, **fields).write(folder / "run")
    return tiny(0)


def drawn(pipeline) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    options = dict(num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np")
    return pipeline("a cat", **options).images


@pytest.mark.parametrize("tiny", [tiny_sd, tiny_sd3])
def test_an_adapter_is_merged_into_a_pipeline_that_loads_alone(tmp_path, tiny):
    """Of a UNet and of a transformer."""
    base = an_adapter(tmp_path, tiny)
    export_run("eval-unlearn", tmp_path / "run", tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())["technique"]["config"]
    assert config["model_id"] == str((tmp_path / "out/model").resolve())
    merged = drawn(DiffusionPipeline.from_pretrained(config["model_id"], safety_checker=None))
    attached = drawn(pipeline_of(read_record(tmp_path / "run"), tmp_path / "run"))
    assert merged == pytest.approx(attached, abs=1e-4) and merged != pytest.approx(drawn(base), abs=1e-3)


def test_a_run_as_a_single_file(tmp_path, capsys):
    """Full weights as they are, an adapter merged; each is read by plain diffusers."""
    run = a_run(tmp_path / "full")
    export_command([str(run), "--format", "single_file"])
    assert f"{run / 'full.safetensors'}: the whole model" in capsys.readouterr().out
    an_adapter(tmp_path)
    export_command([str(tmp_path / "run"), "--format", "single_file", "--output", str(tmp_path / "run.safetensors")])
    attached = drawn(pipeline_of(read_record(tmp_path / "run"), tmp_path / "run"))
    for path, config, expected in (
        (run / "full.safetensors", run, drawn(tiny_sd(1))),
        (tmp_path / "run.safetensors", tmp_path / "base", attached),
    ):
        options = dict(config=str(config), local_files_only=True)
        assert drawn(StableDiffusionPipeline.from_single_file(str(path), **options)) == pytest.approx(
            expected, abs=1e-4
        )
    half = str(tmp_path / "half.safetensors")
    export_command([str(run), "--format", "single_file", "--precision", "fp16", "--output", half])
    assert {value.dtype for value in load_file(half).values()} == {torch.float16}
    v_prediction = tiny_sd(1, prediction_type="v_prediction")
    v_prediction.save_pretrained(tmp_path / "v")
    export_command([str(tmp_path / "v"), "--format", "single_file"])
    assert "it predicts v_prediction, which no name in the file says" in capsys.readouterr().out


@pytest.mark.skipif(Version(diffusers.__version__) < Version("0.42"), reason="0.37 does not read all layers' names")
@pytest.mark.parametrize("ranks", [(2,), (1, 3)])
@pytest.mark.parametrize("tiny", [tiny_sd, tiny_sdxl])
def test_an_adapter_in_kohya_s_form(tmp_path, tiny, ranks):
    """Loaded back by plain diffusers: the same factors, scales and pixels, of one rank and of several."""
    theirs = an_adapter(tmp_path, tiny, ranks, scale=1.5)
    export_command([str(tmp_path / "run"), "--format", "kohya"])
    written = load_file(tmp_path / "run/run_lora.safetensors")
    assert all(name.startswith("lora_unet_") for name in written)
    assert {name.partition(".")[2] for name in written} == {"alpha", "lora_down.weight", "lora_up.weight"}
    ours = tiny(0)
    for pipeline, name in ((ours, "pytorch_lora_weights.safetensors"), (theirs, "run_lora.safetensors")):
        pipeline.load_lora_weights(str(tmp_path / "run"), weight_name=name, adapter_name="a")
    one, other = tuner_layers(ours.unet), tuner_layers(theirs.unet)
    assert one.keys() == other.keys() and len(one) > 40
    assert {layer.r["a"] for layer in one.values()} == set(ranks)
    for name, layer in one.items():
        assert layer.scaling["a"] == 1.5 and layer.r == other[name].r, name
        torch.testing.assert_close(
            layer.get_delta_weight("a"), other[name].get_delta_weight("a"), rtol=1e-5, atol=1e-7
        )
        if len(ranks) == 1:  # bit by bit
            assert other[name].scaling["a"] == 1.5
            assert all(
                torch.equal(layer.get_parameter(n), p) for n, p in other[name].named_parameters() if "lora" in n
            )
    assert drawn(ours) == pytest.approx(drawn(theirs), abs=1e-4)
    assert drawn(ours) != pytest.approx(drawn(tiny(0)), abs=1e-2)


def test_the_small_autoencoder_has_no_place_in_a_single_file(tmp_path):
    """That of the shipped emoji model: it was a traceback."""
    with pytest.raises(ValueError, match="that of an AutoencoderKL, and this model has an AutoencoderTiny"):
        export_command([str(EMOJI_SD), "--format", "single_file", "--output", str(tmp_path / "emoji.safetensors")])
    assert not list(tmp_path.iterdir())


def test_what_kohya_s_form_cannot_say(tmp_path, monkeypatch):
    an_adapter(tmp_path, tiny_sd3)
    for folder, problem in (
        (tmp_path / "run", "adapters of a UNet .* this one has transformer"),
        (tmp_path / "base", "has no pytorch_lora_weights.safetensors"),
        (tmp_path / "none", "is no folder"),
    ):
        with pytest.raises(ValueError, match=problem):
            export_command([str(folder), "--format", "kohya", "--output", str(tmp_path / "lora.safetensors")])
    with pytest.raises(ValueError, match="StableDiffusion3Pipeline has no layout in a single file here"):
        export_command([str(tmp_path / "base"), "--format", "single_file"])
    with pytest.raises(ValueError, match="is no .safetensors file"):
        export_command([str(tmp_path / "base"), "--format", "single_file", "--output", str(tmp_path / "x.ckpt")])
    state = {f"unet.mid.{name}.weight": torch.ones(1, 1) for name in ("lora_A", "lora_B")}
    with pytest.raises(ValueError, match="made with use_rslora"):
        kohya_state(state, {"unet.use_rslora": True})
    monkeypatch.setattr("hf_unlearn.saving.kohya.RENAMED", {"lora_unet_mid": "lora_unet_out"})
    with pytest.raises(ValueError, match="the layer of unet.mid.lora_A.weight has a name"):
        kohya_state(state, {})
    assert not (tmp_path / "lora.safetensors").exists()


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
