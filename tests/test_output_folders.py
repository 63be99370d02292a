"""What is read is never written over, and all that a run writes lies in its output folder."""

import os
import shutil
from pathlib import Path

import pytest
from conftest import config, random_images, tiny_pipeline, tiny_sd, tiny_vit
from PIL import Image

from hf_unlearn import FineTune, UnlearnTrainer, load_ddpm_pipeline, split_by_label

FLAGS = {
    "ddpm": "--forget_class 1 --train_data_dir {data} --pretrained_model_name_or_path",
    "dit": "--forget_class 1 --train_data_dir {data} --pretrained_model_name_or_path",
    "sd": "--concept church --forget_data_dir {data} --pretrained_model_name_or_path",
    "classify": "--forget_class 1 --train_data_dir {data} --pretrained_model_name_or_path",
}


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("command", FLAGS)
def test_an_output_folder_that_is_read_is_refused_first(call, tmp_path, command):
    """Before anything is loaded: these folders hold no models."""
    for name in ("work/model", "data/1", "model-2"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "work/model")
    before = files(tmp_path)
    flags = [word.format(data=tmp_path / "data") for word in FLAGS[command].split()]
    for output, says in (
        ("work/model", "is pretrained_model_name_or_path"),
        ("link", "is pretrained_model_name_or_path"),
        ("work/model/out", "lies in pretrained_model_name_or_path"),
        ("work", "holds pretrained_model_name_or_path"),
        ("data", "is "),
        ("data/out", "lies in "),
    ):
        code, _, error = call(command, *flags, tmp_path / "work/model", "--output_dir", tmp_path / output)
        assert code == 2 and len(error.splitlines()) == 1 and f" {says}" in error, error
        assert "which is read: name a folder elsewhere" in error and files(tmp_path) == before


def test_a_retrained_model_is_not_written_over(call, tmp_path):
    tiny_vit().save_pretrained(tmp_path / "model")
    tiny_vit(seed=1).save_pretrained(tmp_path / "retrained")
    flags = ["--pretrained_model_name_or_path", tmp_path / "model", "--train_data_dir", tmp_path]
    where = ["--retrained_model", tmp_path / "retrained", "--output_dir", tmp_path / "retrained"]
    code, _, error = call("classify", *flags, *where, "--forget_class", "1")
    assert code == 2 and "is retrained_model" in error


def test_a_trainer_does_not_write_over_the_model_that_it_was_given(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "model")
    pipeline = load_ddpm_pipeline(str(tmp_path / "model"))
    data = split_by_label(random_images(), 1)
    with pytest.raises(ValueError, match="output_dir .* is the folder of the model"):
        UnlearnTrainer(pipeline, config(tmp_path / "model"), FineTune(), *data)
    UnlearnTrainer(pipeline, config(tmp_path), FineTune(), *data)


def test_tensorboard_writes_in_one_place(tmp_path, monkeypatch):
    """An evaluation before training would otherwise begin a second one in the current folder."""
    pytest.importorskip("tensorboard")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    made = config(tmp_path / "out", max_steps=2, report_to=["tensorboard"], logging_steps=1, guard_steps=0)
    trainer = UnlearnTrainer(tiny_pipeline(), made, FineTune(), *split_by_label(random_images(), 1))
    trainer.evaluate()
    trainer.train()
    trainer.evaluate()
    assert os.listdir(tmp_path / "here") == []
    places = {path.parent for path in tmp_path.rglob("events.out.*")}
    assert len(places) == 1 and places.pop().parent == tmp_path / "out/runs"


SD = "--concept church --num_inference_steps 1 --max_train_steps 1 --train_batch_size 2 " + (
    "--eval_profile quick --num_eval_images 2 --safety_detector none --method finetune"
)


@pytest.mark.long
def test_a_result_that_was_damaged_is_made_again(call, tmp_path):
    tiny_sd().save_pretrained(tmp_path / "model")
    for number, part in enumerate(("forget", "retain")):
        (tmp_path / part).mkdir()
        for i in range(2):
            Image.new("RGB", (16, 16), (90 * i, 200 * number, 30)).save(tmp_path / part / f"{i}.png")
    out = tmp_path / "out"
    flags = [*SD.split(), "--output_dir", out]
    flags += ["--forget_data_dir", tmp_path / "forget", "--retain_data_dir", tmp_path / "retain"]
    flags += ["--pretrained_model_name_or_path", tmp_path / "model"]

    def again() -> str:
        code, text, error = call("sd", *flags)
        assert code == 0, error
        return text

    assert "[3/5] unlearn" in again() and "finished before" in again()
    shutil.rmtree(out / "vae")
    text = again()
    assert "vae/config.json is missing or was changed, so this stage runs again" in text and "[3/5] unlearn" in text
    assert (out / "vae/config.json").is_file() and "finished before" in again()
    (out / "stages.json").write_text('{"save": ')
    text = again()
    assert "stages.json is torn" in text and "so this stage runs again" in text and "[3/5] unlearn" in text
    (out / "unlearning_report.json").unlink()
    text = again()
    assert "holds no unlearning_report.json" in text and "[3/5] unlearn" in text
    Image.new("RGB", (16, 16), (200, 200, 0)).save(tmp_path / "retain/1.png")
    before = (out / "unet/diffusion_pytorch_model.safetensors").read_bytes()
    assert "[3/5] unlearn" in again()
    assert (out / "unet/diffusion_pytorch_model.safetensors").read_bytes() != before
