"""A finished stage runs again once anything changes that it was made from, or anything that it wrote."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from conftest import tiny_sd
from PIL import Image
from safetensors.torch import load_file, save_file

from hf_unlearn.cli.commands import t2i
from hf_unlearn.cli.parsing import parse
from hf_unlearn.cli.runs.sd import TextToImageRun
from hf_unlearn.cli.stages import Stages
from hf_unlearn.common.identity import identity_of
from hf_unlearn.common.keys import content_key
from hf_unlearn.evaluation.picture_prompts import PictureFlags
from hf_unlearn.saliency.masks import Masks


# ---- the file ----------------------------------------------------------------------------------
def finished(folder: Path) -> Stages:
    (folder / "unet").mkdir(parents=True)
    (folder / "unet/w").write_text("weights")
    (folder / "index").write_text("index")
    stages = Stages(folder, ["save"])
    stages.finish("save", {"a": 1}, ["unet/w", "index"])
    return stages


def test_a_stage_is_finished_for_its_content_only(tmp_path, capsys):
    stages = finished(tmp_path / "out")
    assert stages.finished("save", {"a": 1}) and not stages.finished("save", {"a": 2})
    assert not stages.finished("data", {"a": 1}) and capsys.readouterr().out == ""
    moved = shutil.move(tmp_path / "out", tmp_path / "moved")
    assert Stages(moved, ["save"]).finished("save", {"a": 1})


@pytest.mark.parametrize("how", ["file", "folder", "changed", "same size", "all"])
def test_a_deleted_or_changed_part_is_named(tmp_path, capsys, how):
    stages = finished(tmp_path / "out")
    {
        "file": (tmp_path / "out/index").unlink,
        "folder": lambda: shutil.rmtree(tmp_path / "out/unet"),
        "changed": lambda: (tmp_path / "out/unet/w").write_text("other weights"),
        "same size": lambda: (tmp_path / "out/unet/w").write_text("WEIGHTS"),
        "all": lambda: shutil.rmtree(tmp_path / "out"),
    }[how]()
    assert not stages.finished("save", {"a": 1})
    text = capsys.readouterr().out
    if how != "all":
        name = "index" if how == "file" else "unet/w"
        assert text == f"{tmp_path / 'out' / name} is missing or was changed, so this stage runs again\n"


@pytest.mark.parametrize(
    "content", ['{"save": {"con', "[]", "\xff\xfe", "", '{"save": "0123"}', '{"save": {"files": 3}}']
)
def test_a_broken_file_is_said_and_nothing_counts_as_finished(tmp_path, capsys, content):
    stages = finished(tmp_path)
    stages.path.write_bytes(content.encode("latin1"))
    assert not stages.finished("save", {"a": 1})
    said = capsys.readouterr().out
    earlier = content.startswith('{"save": "') or "3" in content  # whole, but of another version
    assert said == "" if earlier else ("stages.json" in said and said.endswith("so this stage runs again\n"))
    stages.finish("save", {"a": 1}, ["index"])
    assert stages.finished("save", {"a": 1})


def test_other_processes_write_and_say_nothing(tmp_path, capsys):
    stages = finished(tmp_path)
    before = stages.path.read_bytes()
    (tmp_path / "index").unlink()
    other = Stages(tmp_path, ["save"], show=False)
    other.finish("save", {"a": 2}, ["unet/w"])
    assert (
        not other.finished("save", {"a": 1}) and capsys.readouterr().out == "" and stages.path.read_bytes() == before
    )


# ---- what the text-to-image run depends on -----------------------------------------------------
@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("given")
    tiny_sd().save_pretrained(root / "model")
    generator = np.random.default_rng(0)
    for part in ("forget", "retain"):
        (root / part).mkdir()
        for i in range(2):
            Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / part / f"{i}.png")
    rows = [{"file_name": f"{i}.png", "text": f"colour {i}"} for i in range(2)]
    (root / "retain/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Masks({"w": torch.ones(3) > 0}).save(root / "m.safetensors")
    return root


def made_from(root: Path, *flags: str) -> str:
    folders = [
        "--pretrained_model_name_or_path",
        "model",
        "--forget_data_dir",
        "forget",
        "--retain_data_dir",
        "retain",
    ]
    argv = [str(root / word) if not word.startswith("--") else word for word in folders]
    argv += ["--concept", "a church", "--mask_path", str(root / "m.safetensors"), "--cache_dir", str(root / "cache")]
    classes = (t2i.ModelFlags, t2i.ConceptFlags, PictureFlags, t2i.LoraFlags, t2i.DiffusionFlags)
    run = TextToImageRun(parse(classes, [*argv, *flags], kinds=t2i.KINDS))
    run.check()
    run.state = PartialState(cpu=True)
    run.load()
    run.sets()
    return content_key(run.made_from, default=str)


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def shift(path: Path) -> None:
    tensors = load_file(path)
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name] + 0.5}, path, metadata={"format": "pt"})


def swap(tokenizer: Path) -> None:
    """Two letters change places: other ids, the same length."""
    path = tokenizer / "tokenizer.json"
    content = json.loads(path.read_text())
    vocab = content["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    path.write_text(json.dumps(content))


CHANGES = {
    "an image": lambda root: Image.new("RGB", (16, 16)).save(root / "forget/1.png"),
    "a caption": lambda root: (root / "retain/metadata.jsonl").write_text(
        (root / "retain/metadata.jsonl").read_text().replace("colour 1", "a colour")
    ),
    "one image less": lambda root: (root / "forget/1.png").unlink(),
    "masks": lambda root: Masks({"w": torch.ones(3) < 0}).save(root / "m.safetensors"),
    "text encoder": lambda root: shift(root / "model/text_encoder/model.safetensors"),
    "unet": lambda root: shift(root / "model/unet/diffusion_pytorch_model.safetensors"),
    "vae": lambda root: shift(root / "model/vae/diffusion_pytorch_model.safetensors"),
    "scaling factor": lambda root: edit(root / "model/vae/config.json", scaling_factor=0.5),
    "scheduler": lambda root: edit(root / "model/scheduler/scheduler_config.json", beta_end=0.03),
    "tokenizer": lambda root: swap(root / "model/tokenizer"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_decides_is_in_the_key(given, tmp_path, change):
    root = Path(shutil.copytree(given, tmp_path / "root"))
    before = made_from(root)
    CHANGES[change](root)
    assert made_from(root) != before


def test_flags_that_decide_are_in_the_key_and_others_are_not(given):
    first = made_from(given)
    assert (
        made_from(given)
        == made_from(given, "--push_to_hub", "--hub_token", "hf_secret", "--logging_steps", "3")
        == first
    )
    for flags in (["--seed", "1"], ["--method", "uce", "--tokens", "after"], ["--train_method", "xattn"]):
        assert made_from(given, *flags) != first
    after = made_from(given, "--method", "uce", "--tokens", "after")
    assert after != made_from(given, "--method", "uce")


def test_the_version_of_the_code_is_in_the_key(given, monkeypatch):
    first = made_from(given)
    monkeypatch.setattr("hf_unlearn.cli.runs.sd.code_key", lambda *modules: "other code")
    assert made_from(given) != first


def test_identities_are_the_same_in_every_process_and_after_use(tmp_path):
    pipeline = tiny_sd()
    pipeline.save_pretrained(tmp_path / "a")
    pipeline.save_pretrained(tmp_path / "b")
    one, two = (type(pipeline).from_pretrained(tmp_path / name, safety_checker=None) for name in "ab")
    first = identity_of(one)
    assert first == identity_of(two) == json.loads(json.dumps(first))
    one.tokenizer(["a", "long text"], padding="max_length", truncation=True)
    one.unet.requires_grad_(False)
    one.unet.register_to_config(_unlearning_history=[{"date": "today"}])
    assert identity_of(one) == first
    two.scheduler = type(two.scheduler).from_config(two.scheduler.config, clip_sample=True)
    assert identity_of(two) != first
