"""hf-unlearn saliency: the masks of a run before the run, for every family, and the table of them."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from conftest import save_vit_and_images, tiny_dit, tiny_pipeline, tiny_sd
from safetensors.torch import load_file

from hf_unlearn.__main__ import main
from hf_unlearn.cli.classifier_flags import ClassifierDataFlags
from hf_unlearn.cli.commands.saliency_flags import parser
from hf_unlearn.cli.flags import ImageDataFlags
from hf_unlearn.methods import SFRon
from hf_unlearn.saliency.masks import Masks

SCRIPTS = Path(__file__).parents[1] / "scripts"
DIFFUSION = ["--max_train_steps", "2", "--train_batch_size", "4", "--num_inference_steps", "2"]
CLASSIFIER = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--disable_tqdm", "True", "--use_cpu", "True"]
OPTIONS = ["--fisher_samples", "6", "--seed", "5", "--mask_threshold", "0.8"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A model of each family, and four classes of three images, grey and in colour."""
    root = tmp_path_factory.mktemp("saliency")
    tiny_pipeline().save_pretrained(root / "unet")
    tiny_dit().save_pretrained(root / "dit")
    tiny_sd().save_pretrained(root / "sd")
    save_vit_and_images(root)
    return {path.name: path for path in root.iterdir()}


@pytest.fixture
def saliency(monkeypatch, capsys):
    """`saliency(*arguments)`: (exit code, output, error lines that say so)."""

    def call(*arguments) -> tuple[int, str, list[str]]:
        monkeypatch.setattr("sys.argv", ["hf-unlearn", "saliency", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, error = capsys.readouterr()
        return stop.value.code, out, [line for line in error.splitlines() if "error:" in line]

    return call


@pytest.mark.parametrize(
    ("family", "script", "images", "data", "quick", "extra", "weights"),
    [
        (
            "unet",
            "unlearn_ddpm.py",
            "grey",
            "--train_data_dir",
            DIFFUSION,
            ["--label_dropout", "0.3", "--antithetic"],
            "unet/diffusion_pytorch_model.safetensors",
        ),
        (
            "dit",
            "unlearn_dit.py",
            "colour",
            "--train_data_dir",
            DIFFUSION,
            ["--variance_weight", "0.1", "--random_flip"],
            "transformer/diffusion_pytorch_model.safetensors",
        ),
        (
            "vit",
            "unlearn_classification.py",
            "grey",
            "--train_data_dir",
            [*CLASSIFIER, "--use_mask", "true"],
            [],
            "model.safetensors",
        ),
    ],
)
def test_a_run_with_the_file_is_a_run_that_computes_it(
    folders, tmp_path, run_script, saliency, family, script, images, data, quick, extra, weights
):
    chosen = [data, folders[images], "--forget_class", "1", *OPTIONS, *extra]
    code, _, error = saliency(folders[family], *chosen, "--output", tmp_path / "masks.safetensors")
    assert code == 0, error
    masks = Masks.load(tmp_path / "masks.safetensors")
    assert 0 < masks.density < 1 and masks.metadata["gamma"] == "0.8"
    name = "--pretrained_model_name_or_path"
    chosen += quick if "ddpm" not in script else [*quick, "--guidance_scale", "1"]
    given = ["--mask_path", tmp_path / "masks.safetensors"]
    inverse = Masks({n: ~m for n, m in masks.tensors.items()})
    inverse.save(tmp_path / "inverse.safetensors")
    made = {}
    for out, more in {"own": [], "given": given, "other": ["--mask_path", tmp_path / "inverse.safetensors"]}.items():
        code, _, error = run_script(
            SCRIPTS / script, name, folders[family], *chosen, *more, "--output_dir", tmp_path / out
        )
        assert code == 0, error
        made[out] = load_file(tmp_path / out / weights)
    for key, tensor in made["own"].items():
        assert torch.equal(tensor, made["given"][key]), key
    assert any(not torch.equal(made["own"][key], made["other"][key]) for key in made["own"])  # masks matter here
    layers = json.loads((tmp_path / "own" / "unlearning_report.json").read_text())["mask"]["layers"]
    assert sorted(tuple(row) for row in layers) == sorted(masks.table())


def test_the_shipped_model_without_arguments(tmp_path, saliency, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text, error = saliency("--fisher_samples", "8", "--top", "3", "--mask_density", "0.05")
    assert code == 0, error
    masks = Masks.load(tmp_path / "masks.safetensors")
    assert masks.density == pytest.approx(0.05, abs=1e-4)
    lines = text.splitlines()
    assert lines[0].startswith("masks.safetensors: 5.0% of 396,697 weights are salient (density 0.05; ")
    shares = [float(line.split("|")[2].strip(" %")) for line in lines[4:7]]
    assert shares == sorted(shares, reverse=True) and "more layers" in lines[-1]
    assert not list(tmp_path.glob("*.partial"))
    code, text, _ = saliency("--fisher_samples", "8", "--json")
    found = json.loads(text)
    assert found["density"] == Masks.load(tmp_path / "masks.safetensors").density
    table = Masks.load(tmp_path / "masks.safetensors").table()
    assert sorted(tuple(row) for row in found["layers"]) == sorted(table)


def test_flags_are_those_of_the_scripts():
    known = set(parser()._option_string_actions)
    for flags in (ImageDataFlags, ClassifierDataFlags):
        # Of figures, which this command does not take; and it reads all images, not the first ones of a stream.
        others = {"validation_data_dir", "max_eval_samples", "streaming"}
        assert {f"--{f.name}" for f in fields(flags) if f.name not in others} <= known
    given = parser().parse_args([])
    for name in ("mask_threshold", "fisher", "fisher_samples", "fisher_batch_size"):
        assert getattr(given, name) is None and hasattr(SFRon(), name)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["{unet}"], "no data: set --train_data_dir"),
        (["{unet}", "--train_data_dir", "{grey}"], "say what to forget"),
        (["{unet}", "--train_data_dir", "{grey}", "--forget_class", "one"], "class one is not in the data, which has"),
        (["{unet}", "--train_data_dir", "{grey}", "--forget_class", "9"], "class 9 is not in the data"),
        (["{unet}", "--forget_fraction", "0.5"], "--forget_fraction is not for a pipeline"),
        (["{unet}", "--random_flip"], "--random_flip is not for a UNet2D pipeline"),
        (["{dit}", "--null_class", "3"], "--null_class is not for a DiT"),
        (["{vit}", "--antithetic"], "--antithetic is not for a classifier"),
        (["{vit}", "--forget_indices", "1", "2"], "is one file"),
        (["{sd}"], "`hf-unlearn sd` keeps the masks"),
        (["{grey}"], "is not a saved model"),
        (["{grey}/nothing"], "does not exist"),
        (["--mask_density", "0.1", "--mask_threshold", "1"], "not allowed with"),
        (["--mask_density", "2", "--fisher_samples", "4"], "must lie in (0, 1]"),
        (["--output", "{grey}"], "is a folder"),
        (["--top", "0"], "top must be at least 1"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(folders, tmp_path, monkeypatch, saliency, arguments, problem):
    monkeypatch.chdir(tmp_path)
    code, out, error = saliency(*(text.format(**folders) for text in arguments))
    assert code == 2 and not out and len(error) == 1 and problem in error[0]
    assert not list(tmp_path.iterdir())
