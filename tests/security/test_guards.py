"""What a stranger's file may not do: run code, lead out of its folder, fill the memory. Each guard by its own test.

torch is told to unpickle wherever a call does not forbid it, so that a guard that is gone is a payload that runs.
"""

import builtins
import json
import pickle
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_dit, tiny_pipeline, tiny_sd, tiny_vit
from emoji_pictures import ICONS, load_emoji
from PIL import Image
from records import run_record
from spoil import Payload, bomb, cut, edit, evil, huge_header, link, many, write
from torch import nn

from hf_unlearn import Classification, load_adapter, load_ddpm_pipeline
from hf_unlearn.cli.side_by_side import original_of
from hf_unlearn.common.untrusted import check_folder, pipeline_index
from hf_unlearn.common.weights import save_weights
from hf_unlearn.data.images import open_image
from hf_unlearn.evaluation.inception import load_published
from hf_unlearn.families.classifier.load import load_image_classifier
from hf_unlearn.families.dit.load import load_dit_pipeline
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline
from hf_unlearn.hub.contents import read_contents
from hf_unlearn.report.page import page
from hf_unlearn.saliency.masks import Masks
from hf_unlearn.saving.export import check_checkpoint

FAMILIES = {
    "ddpm": (tiny_pipeline, load_ddpm_pipeline, ("unet/diffusion_pytorch_model",)),
    "dit": (tiny_dit, load_dit_pipeline, ("transformer/diffusion_pytorch_model", "vae/diffusion_pytorch_model")),
    "sd": (tiny_sd, load_text_to_image_pipeline, ("unet/diffusion_pytorch_model", "text_encoder/model")),
    "vit": (tiny_vit, load_image_classifier, ("model",)),
}


@pytest.fixture(autouse=True)
def careless(monkeypatch):
    """torch.load unpickles where it is not told otherwise; whoever is asked says yes."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setattr(builtins, "input", lambda *_: "y")


def ran(folder: Path) -> bool:
    return bool(list(folder.rglob("RAN")))


# ---- pickles --------------------------------------------------------------------------------------------
def test_the_payload_would_run(tmp_path):
    """Without a guard it does: otherwise none of the others says anything."""
    evil("a.pt")(tmp_path)
    with pytest.warns(UserWarning, match="forcing weights_only=False"):
        torch.load(tmp_path / "a.pt")
    assert ran(tmp_path)
    (tmp_path / "RAN").rmdir()
    pickle.loads(pickle.dumps(Payload(tmp_path / "RAN")))
    assert ran(tmp_path)


def pickled(name: str) -> str:
    return name.replace("text_encoder/model", "text_encoder/pytorch_model") if "/" in name else f"pytorch_{name}"


@pytest.mark.parametrize(("family", "part"), [(f, part) for f, (_, _, parts) in FAMILIES.items() for part in parts])
def test_weights_that_are_only_pickled_are_not_loaded(tmp_path, family, part):
    """Not even honest ones: nobody can tell before they are read."""
    build, load, _ = FAMILIES[family]
    build().save_pretrained(tmp_path)
    from safetensors.torch import load_file

    state = load_file(tmp_path / f"{part}.safetensors")
    (tmp_path / f"{part}.safetensors").unlink()
    for content in (state, {**state, "more": Payload(tmp_path / "RAN")}):
        torch.save(content, tmp_path / f"{pickled(part)}.bin")
        with pytest.raises((ValueError, OSError), match="safetensors"):
            load(str(tmp_path))
    assert not ran(tmp_path)


def object_array(folder: Path) -> None:
    values = np.empty(1, dtype=object)
    values[0] = Payload(folder / "RAN")
    np.savez(folder / "fluent_64.npz", x=values)
    (folder / "names.json").write_text(json.dumps([{"name": "x"}]))


def peft_pickle(folder: Path) -> None:
    many(write("adapter_config.json", '{"peft_type": "LORA"}'), evil("adapter_model.bin"))(folder)


def lora_pickle(folder: Path) -> None:
    """diffusers' default takes the .bin where the safetensors file beside it is torn."""
    many(write("pytorch_lora_weights.safetensors", "torn"), evil("pytorch_lora_weights.bin"))(folder)


@pytest.mark.parametrize(
    ("make", "read"),
    [
        (evil("i.pth"), lambda folder: load_published(nn.Linear(1, 1), folder / "i.pth", "weights")),
        (evil("i.pkl"), lambda folder: load_published(nn.Linear(1, 1), folder / "i.pkl", "weights")),
        (evil("m.safetensors"), lambda folder: Masks.load(folder / "m.safetensors")),
        (object_array, load_emoji),
        (peft_pickle, lambda folder: load_adapter(tiny_vit(), folder)),
        (lora_pickle, lambda folder: load_adapter(tiny_sd(), folder)),
    ],
    ids=["pth", "pkl", "masks", "npz", "peft", "lora"],
)
def test_a_pickle_is_refused_and_does_not_run(tmp_path, make, read):
    make(tmp_path)
    with pytest.raises((ValueError, OSError)):
        read(tmp_path)
    assert not ran(tmp_path)


def test_a_torn_adapter_is_not_replaced_by_a_pickle_beside_it(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(torch, "load", lambda path, *_, **__: opened.append(path) or {})
    lora_pickle(tmp_path)
    with pytest.raises(ValueError, match="pytorch_lora_weights.safetensors"):
        load_adapter(tiny_sd(), tmp_path)
    assert opened == []


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "rng_state_1.pth", "scaler.pt"])
def test_a_checkpoint_holds_tensors_only(tmp_path, name):
    """Trainer itself reads these files; they are looked at before it does."""
    objective = Classification(tiny_vit())
    (tmp_path / "trainer_state.json").write_text("{}")
    save_weights(objective, tmp_path / "model.safetensors")
    torch.save({"rate": 0.5, "state": [torch.ones(2)]}, tmp_path / name)
    check_checkpoint(tmp_path, objective)
    evil(name)(tmp_path)
    with pytest.raises(ValueError, match=f"{name} is torn or would run code"):
        check_checkpoint(tmp_path, objective)
    (tmp_path / name).unlink()
    evil("pytorch_model.bin", instead_of="model.safetensors")(tmp_path)
    with pytest.raises(ValueError, match="pickles are not loaded"):
        check_checkpoint(tmp_path, objective)
    assert not ran(tmp_path)


# ---- code that a folder brings along --------------------------------------------------------------------
CODE = "import os\nos.mkdir({!r})\nclass Own:\n    pass\n"


def test_code_beside_a_model_is_not_run(tmp_path):
    """Somebody says yes when transformers asks (`careless`), so nobody may be asked."""
    tiny_vit().save_pretrained(tmp_path)
    own = {"AutoConfig": "own.Own", "AutoModelForImageClassification": "own.Own"}
    (tmp_path / "own.py").write_text(CODE.format(str(tmp_path / "RAN")))
    edit("config.json", auto_map=own)(tmp_path)
    assert type(load_image_classifier(str(tmp_path))[0]).__name__ == "ViTForImageClassification"
    edit("config.json", auto_map=own, model_type="own")(tmp_path)
    with pytest.raises(ValueError, match="custom code"):
        load_image_classifier(str(tmp_path))
    assert not ran(tmp_path)


def test_a_pipeline_names_no_class_of_another_module(tmp_path, monkeypatch):
    """Not even of one that is imported already, from where diffusers would take it."""
    tiny_pipeline().save_pretrained(tmp_path)
    module = types.ModuleType("own")

    def make(*args, **options):
        (tmp_path / "RAN").mkdir()

    module.DDIMScheduler = type("DDIMScheduler", (), {"from_pretrained": make, "from_config": make})
    monkeypatch.setitem(sys.modules, "own", module)
    edit("model_index.json", scheduler=["own", "DDIMScheduler"])(tmp_path)
    with pytest.raises(ValueError, match="not of diffusers or transformers"):
        load_ddpm_pipeline(str(tmp_path))
    edit("model_index.json", scheduler=["diffusers", "DDIMScheduler"], _class_name=["own", "Own"])(tmp_path)
    with pytest.raises(ValueError, match="does not name a pipeline's class"):
        pipeline_index(str(tmp_path))
    assert not ran(tmp_path)


def test_an_adapter_imports_no_module(tmp_path):
    settings = {"peft_type": "LORA", "megatron_config": {"a": 1}, "megatron_core": "megatron.own"}
    many(write("adapter_config.json", json.dumps(settings)), write("adapter_model.safetensors", ""))(tmp_path)
    with pytest.raises(ValueError, match="Megatron"):
        load_adapter(tiny_vit(), tmp_path)


# ---- paths ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["../other.safetensors", "/other.safetensors", "sub/other.safetensors", "other.bin"])
def test_shards_lie_beside_their_index(tmp_path, name):
    tiny_vit().save_pretrained(tmp_path / "model")
    index = write("model/model.safetensors.index.json", json.dumps({"weight_map": {"a": name}}))
    many(index, lambda folder: (folder / "model/model.safetensors").rename(folder / "other.safetensors"))(tmp_path)
    for read in (check_folder, load_image_classifier, read_contents):
        with pytest.raises(ValueError, match="no safetensors file beside it"):
            read(str(tmp_path / "model"))


def test_a_link_out_of_the_folder_is_not_published(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "model")
    (tmp_path / "secret").write_text("a key")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/scheduler_config.json").write_text("{}")
    (tmp_path / "model/notes.md").write_text("A card.")
    link("model/README.md", str(tmp_path / "model/notes.md"))(tmp_path)
    assert "README.md" in read_contents(tmp_path / "model").files  # a link inside the folder may stay
    for name, target in (("model/README.md", "secret"), ("model/figures.json", "../secret")):
        link(name, target if target == "secret" else str(tmp_path / "secret"))(tmp_path)
        with pytest.raises(ValueError, match="out of the folder"):
            read_contents(tmp_path / "model")
        (tmp_path / name).unlink()
    edit("model/model_index.json", **{"../elsewhere": ["diffusers", "DDIMScheduler"]})(tmp_path)
    with pytest.raises(ValueError, match="out of the folder"):
        read_contents(tmp_path / "model")


def test_a_record_names_files_and_models_not_paths(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "outside.png")
    for picture in ("../outside.png", str(tmp_path / "outside.png")):
        with pytest.raises(ValueError, match="is not a file in the run's folder"):
            page(run_record(picture=picture), run)
    (run / "inside.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(ValueError, match="leads out of the run's folder"):
        page(run_record(picture="inside.png"), run)
    tiny_vit().save_pretrained(tmp_path / "other")
    for name, on_hub in (("../other", False), (str(tmp_path / "other"), False), (str(tmp_path / "other"), True)):
        record = run_record(base_model={"name": name, "revision": None, "on_hub": on_hub})
        with pytest.raises(ValueError, match="base_model"):
            original_of(record, run)


def test_a_hub_that_lists_files_above_the_folder(hub, tmp_path, monkeypatch):
    """huggingface_hub's own guard, met through our loader: nothing lies outside of the cache afterwards."""
    from hub_routes import Repo
    from huggingface_hub import constants

    cache = tmp_path / "deep/er/cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    tiny_pipeline().save_pretrained(tmp_path / "model")
    files = {
        p.relative_to(tmp_path / "model").as_posix(): p.read_bytes() for p in (tmp_path / "model").rglob("*.json")
    }
    names = ("../../../../../../escaped.json", "unet/../../../../../../../escaped.json", "/escaped.json")
    hub.repos["user/x"] = Repo(private=False)
    hub.repos["user/x"].commit("main", {**files, **dict.fromkeys(names, b"{}")})
    with pytest.raises((ValueError, OSError)):
        load_ddpm_pipeline("user/x", cache_dir=str(cache))
    assert [path for path in tmp_path.rglob("*escaped*") if not path.is_relative_to(cache)] == []


# ---- sizes ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("side", [60_000, 10_000])
def test_a_picture_of_too_many_pixels_is_not_unpacked(tmp_path, side):
    """Pillow itself only warns of the smaller one."""
    bomb("a.png", side)(tmp_path)
    for content in (
        {"bytes": None, "path": str(tmp_path / "a.png")},
        {"bytes": (tmp_path / "a.png").read_bytes(), "path": None},
    ):
        with pytest.raises(ValueError, match="a.png has too many pixels"):
            open_image(content, "a.png")
    with pytest.raises(ValueError, match="a.png has too many pixels"):
        page(run_record(picture="a.png"), tmp_path)


def test_a_header_that_is_larger_than_its_file(tmp_path):
    tiny_vit().save_pretrained(tmp_path)
    huge_header("model.safetensors")(tmp_path)
    with pytest.raises(ValueError, match="does not load"):
        load_image_classifier(str(tmp_path))
    with pytest.raises(ValueError, match="torn or no safetensors"):
        read_contents(tmp_path)
    with pytest.raises(ValueError, match="not a readable mask file"):
        Masks.load(tmp_path / "model.safetensors")


def test_an_archive_that_unpacks_to_more_than_it_may(tmp_path, monkeypatch):
    monkeypatch.setattr("emoji_pictures.LARGEST", 10_000)
    (tmp_path / "names.json").write_text(json.dumps([{"name": icon} for icon in ICONS.values()]))
    for style in ("fluent", "noto", "twemoji"):
        np.savez_compressed(tmp_path / f"{style}_64.npz", x=np.zeros((24, 64, 64, 3), np.uint8))
    assert sum(i.compress_size for i in zipfile.ZipFile(tmp_path / "fluent_64.npz").infolist()) < 10_000
    with pytest.raises(ValueError, match="unpacks to more than"):
        load_emoji(tmp_path)
    monkeypatch.setattr("emoji_pictures.LARGEST", 10**6)
    assert load_emoji(tmp_path)[0].shape == (72, 3, 64, 64)


def test_torn_weights_name_their_folder(tmp_path):
    tiny_vit().save_pretrained(tmp_path)
    cut("model.safetensors")(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path} does not load"):
        load_image_classifier(str(tmp_path))
