"""Models and data that do not load: one line with the cause and what to set."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import environment, tiny_dit, tiny_pipeline, tiny_sd, tiny_vit
from PIL import Image

from hf_unlearn.cli.estimates import outline
from hf_unlearn.common.untrusted import check_metadata_paths, loading
from hf_unlearn.data.sources import load_captioned_images, load_rows
from hf_unlearn.families.classifier.load import load_image_classifier
from hf_unlearn.families.ddpm.pipeline import load_ddpm_pipeline
from hf_unlearn.families.dit.load import load_dit_pipeline
from hf_unlearn.families.load import load_model
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline

LOADERS = {
    "ddpm": (tiny_pipeline, load_ddpm_pipeline),
    "dit": (tiny_dit, load_dit_pipeline),
    "sd": (tiny_sd, load_text_to_image_pipeline),
    "vit": (tiny_vit, load_image_classifier),
}


def refused(load, *arguments, **options) -> str:
    with pytest.raises((ValueError, OSError)) as error:
        load(*arguments, **options)
    text = str(error.value)
    assert "\n" not in text and len(text) < 600, text
    return text


def network(model):
    return next(getattr(model, name) for name in ("transformer", "unet", "vit") if hasattr(model, name))


@pytest.mark.parametrize("family", LOADERS)
def test_a_folder_of_a_variant_says_which_and_loads_with_it(tmp_path, family):
    make, load = LOADERS[family]
    model = make()
    model.save_pretrained(tmp_path, variant="fp16")
    assert not list(tmp_path.rglob("*model.safetensors"))
    for loader in (load, load_model):
        text = refused(loader, str(tmp_path))
        assert "only of the variant fp16: set --variant fp16" in text
    assert "only of the variant fp16" in refused(load, str(tmp_path), variant="bf16")
    assert outline(str(tmp_path)).config  # an estimate reads no weights
    loaded = load(str(tmp_path), variant="fp16")
    loaded = loaded[0] if isinstance(loaded, tuple) else loaded
    ours = network(model).state_dict()
    assert all(torch.equal(ours[name], value) for name, value in network(loaded).state_dict().items())


@pytest.mark.parametrize("family", LOADERS)
def test_a_variant_that_is_not_there(tmp_path, family):
    make, load = LOADERS[family]
    make().save_pretrained(tmp_path)
    text = refused(load, str(tmp_path), variant="fp16")
    assert "has no weights of the variant fp16: leave --variant out" in text


@pytest.mark.parametrize("family", LOADERS)
def test_pickled_weights_alone(tmp_path, family):
    """transformers 5 itself writes none any more."""
    make, load = LOADERS[family]
    make().save_pretrained(tmp_path)
    for path in tmp_path.rglob("*.safetensors"):
        stem = "pytorch_model" if path.name == "model.safetensors" else "diffusion_pytorch_model"
        path.rename(path.with_name(f"{stem}.bin"))
    text = refused(load, str(tmp_path))
    assert ".bin, no safetensors: pickles (.bin) are not loaded" in text and "use_safetensors=False" in text


@pytest.mark.parametrize("name", ["v1-5.safetensors", "v1-5.ckpt"])
def test_a_single_file(tmp_path, name):
    """Only text-to-image loaders take one, by its own name."""
    (tmp_path / name).write_bytes(b"weights")
    whole = (load_model, LOADERS["sd"][1])
    for load in (load_model, *(load for _, load in LOADERS.values())):
        for given in (tmp_path,) if load in whole else (tmp_path / name, tmp_path):
            text = refused(load, str(given))
            assert "is a checkpoint in a single file" in text and "from_single_file" in text, load
        assert "from_single_file" in refused(load, f"https://host/{name}")
    for load in whole:
        assert name in refused(load, str(tmp_path / name))
    (tmp_path / "notes.txt").write_text("x")
    assert "is a file: give the folder of a model" in refused(load_model, str(tmp_path / "notes.txt"))


@pytest.mark.parametrize("load", [load_model, *(load for _, load in LOADERS.values())])
def test_a_hub_id_offline(load):
    text = refused(load, "user/none")
    assert "user/none is no folder here" in text and "unset HF_HUB_OFFLINE, or name a folder" in text


def test_a_data_set_offline():
    text = refused(load_rows, "user/none", "train")
    assert "user/none is no folder here" in text and "unset HF_HUB_OFFLINE" in text


@pytest.mark.parametrize("where", ["hub", "datasets"])
def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path, where):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", "/dev/null/.cache/huggingface")
    folder = "/dev/null/.cache" if where == "hub" else str(tmp_path / "file/datasets")
    (tmp_path / "file").write_text("x")
    if where == "datasets":
        monkeypatch.setenv("HF_DATASETS_CACHE", folder)
    with pytest.raises(OSError) as error, loading("photos"):
        os.makedirs(folder)
    text = str(error.value)
    assert "the cache folder" in text and "cannot be used (Not a directory" in text
    assert ("set HF_HOME and HF_DATASETS_CACHE to a folder" if where == "datasets" else "set HF_HOME to a") in text
    with pytest.raises(NotADirectoryError), loading(tmp_path / "file"):  # of the model itself: as it was
        os.listdir(tmp_path / "file")


def captioned(folder: Path, lines: str, name: str = "metadata.jsonl") -> Path:
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "0.png")
    Image.new("RGB", (8, 8)).save(folder.parent / "secret.png")
    (folder / name).write_text(lines)
    return folder


@pytest.mark.parametrize(
    ("named", "key"),
    [
        ("../secret.png", "file_name"),
        ("a/../../secret.png", "file_name"),
        ("/etc/passwd", "file_name"),
        ("..\\secret.png", "file_name"),
        ("C:\\secret.png", "file_name"),
        ("https://host/x.png", "file_name"),
        ("../secret.png", "mask_file_name"),
    ],
)
def test_a_metadata_path_that_leaves_its_folder(tmp_path, named, key):
    rows = [{"file_name": "0.png", "text": "x"}, {"file_name": "0.png", "text": "y", key: named}]
    folder = captioned(tmp_path / "data", "".join(json.dumps(row) + "\n" for row in rows))
    text = refused(load_captioned_images, folder, 8)
    assert f"metadata.jsonl, row 2: {key} {named!r} leads out of {folder}" in text


def test_other_metadata_files(tmp_path):
    folder = captioned(tmp_path / "csv", "file_name,text\n0.png,x\n../secret.png,y\n", "metadata.csv")
    assert "metadata.csv, row 2: file_name '../secret.png' leads out" in refused(load_captioned_images, folder, 8)
    import pyarrow
    from pyarrow import parquet

    folder = captioned(tmp_path / "rows", "", "metadata.txt")
    parquet.write_table(pyarrow.table({"file_names": [["0.png"], ["../secret.png"]]}), folder / "metadata.parquet")
    with pytest.raises(ValueError, match="row 2: file_names '../secret.png' leads out"):
        check_metadata_paths(folder)
    inside = '{"file_name": "./a/../0.png", "text": "x"}\n'
    check_metadata_paths(captioned(tmp_path / "inside", inside))
    assert load_captioned_images(captioned(tmp_path / "plain", '{"file_name": "0.png", "text": "x"}\n'), 8)[1] == ["x"]


@pytest.mark.long
def test_a_home_that_cannot_be_used_is_one_line(tmp_path):
    tiny_vit().save_pretrained(tmp_path / "vit")
    for label in "01":
        (tmp_path / "data" / label).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "data" / label / "0.png")
    command = [sys.executable, "-m", "hf_unlearn", "classify", "--pretrained_model_name_or_path", tmp_path / "vit"]
    command += ["--train_data_dir", tmp_path / "data", "--forget_class", "1", "--output_dir", tmp_path / "out"]
    command += ["--image_mean", "0.5", "--image_std", "0.5"]
    env = {k: v for k, v in environment(HOME="/dev/null").items() if not k.startswith(("HF_HOME", "XDG_"))}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=env, timeout=300)
    lines = [line for line in done.stderr.splitlines() if "error:" in line]
    assert done.returncode == 2 and len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    assert "the cache folder /dev/null/.cache/huggingface cannot be used" in lines[0] and "set HF_HOME" in lines[0]
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
