"""A full disk and a read-only folder: one line, and what was there before is as it was."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import config, random_images, tiny_pipeline
from safetensors.torch import save_file

from hf_unlearn import FineTune, NoisePrediction, UnlearnTrainer, split_by_label
from hf_unlearn.cli.stages import Stages
from hf_unlearn.common.files import atomic, atomic_folder, write_text
from hf_unlearn.saving.checkpoints import find_checkpoint
from hf_unlearn.saving.export import export

SCRIPT = Path(__file__).parents[2] / "scripts" / "unlearn_ddpm.py"
FULL = "could not be written (the disk is full: make room or name a folder elsewhere); what was there before is as it"


@pytest.fixture
def small(tmp_path):
    """`small(kilobytes)` is a disk of that size of its own; `small.fill()` leaves no room on it."""

    class Disk:
        folder = tmp_path / "disk"

        def __call__(self, kilobytes: int, *options: str) -> Path:
            self.folder.mkdir(exist_ok=True)
            settings = ",".join([f"size={kilobytes}k", *options])
            command = ["mount", "-t", "tmpfs", "-o", settings, "tmpfs", str(self.folder)]
            done = subprocess.run(command, capture_output=True, text=True) if shutil.which("mount") else None
            if done is None or done.returncode:
                pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip() if done else 'no mount'}")
            return self.folder

        def fill(self, leave: int = 0) -> None:
            free = shutil.disk_usage(self.folder).free
            (self.folder / "filler").write_bytes(bytes(max(free - leave, 0)))

        def read_only(self) -> None:
            subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)

    disk = Disk()
    yield disk
    if os.path.ismount(disk.folder):  # lazily: torch keeps the file of a failed save open for a while
        subprocess.run(["umount", "--lazy", str(disk.folder)], check=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def trainer_of(folder, **values) -> UnlearnTrainer:
    made = config(folder, max_steps=4, save_strategy="steps", save_steps=2, guard_steps=0, **values)
    return UnlearnTrainer(tiny_pipeline(), made, FineTune(), *split_by_label(random_images(), 1))


@pytest.mark.parametrize("kind", ["text", "safetensors", "torch"])
def test_a_file_that_does_not_fit_leaves_the_old_one(small, kind):
    """safetensors and torch say so in exceptions of their own."""
    path = small(64) / "file"
    write_text(path, "earlier")
    big = torch.zeros(1 << 16)
    with pytest.raises(OSError) as error, atomic(path) as partial:
        if kind == "text":
            partial.write_bytes(big.numpy().tobytes())
        elif kind == "safetensors":
            save_file({"big": big}, partial)
        else:
            torch.save({"big": big}, partial)
    assert f"{path} {FULL}" in str(error.value) and "\n" not in str(error.value)
    assert contents(path.parent) == {"file": b"earlier"}


@pytest.mark.parametrize("leave", [0, 20_000, 200_000])
def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(small, leave):
    """No room at all, room for the masks and states, room for the weights but not for the optimizer."""
    folder = small(3000)
    trainer = trainer_of(folder)
    stock, found = trainer._save_checkpoint, {}

    def second(*arguments):
        if trainer.state.global_step == 4:
            small.fill(leave)
            found.update(contents(folder))
        stock(*arguments)

    trainer._save_checkpoint = second
    with pytest.raises(OSError) as error:
        trainer.train()
    assert FULL in str(error.value) and "checkpoint-4" in str(error.value) and str(error.value).count("written") == 1
    assert contents(folder) == found and find_checkpoint(folder, "latest") == str(folder / "checkpoint-2")


def test_an_export_that_does_not_fit_leaves_the_earlier_result(small):
    folder = small(1000)
    export(NoisePrediction(tiny_pipeline(seed=0)), folder)
    small.fill(leave=50_000)
    before = contents(folder)
    with pytest.raises(OSError) as error:
        export(NoisePrediction(tiny_pipeline(seed=1)), folder)
    assert f"{folder} {FULL}" in str(error.value) and contents(folder) == before


def test_a_second_export_replaces_the_first_and_nothing_else(tmp_path):
    export(NoisePrediction(tiny_pipeline(seed=0)), tmp_path)
    first = contents(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    stale = tmp_path / "unet/diffusion_pytorch_model-00001-of-00002.safetensors"
    stale.write_text("of an earlier, larger model")
    export(NoisePrediction(tiny_pipeline(seed=1)), tmp_path)
    second = contents(tmp_path)
    changed = {name for name in second if first.get(name) != second[name]}
    assert changed == {"README.md", "unet/diffusion_pytorch_model.safetensors"} and not stale.exists()


def test_a_broken_export_changes_nothing(tmp_path):
    write_text(tmp_path / "a.json", "earlier")
    with pytest.raises(RuntimeError, match="does not reload"), atomic_folder(tmp_path) as staged:
        (staged / "a.json").write_text("new")
        raise RuntimeError("does not reload to what was saved")
    assert contents(tmp_path) == {"a.json": b"earlier"} and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_under_a_script_is_one_line(small, tmp_path, run_script):
    """The result of an earlier run is on the disk; the next one cannot be saved."""
    folder = small(20_000) / "out"
    folder.mkdir()
    (folder / "unet").mkdir()
    write_text(folder / "unet/diffusion_pytorch_model.safetensors", "the earlier weights")
    write_text(folder / "unlearning_report.json", "{}")
    small.fill(leave=100_000)
    before = contents(folder)
    flags = ["--max_train_steps", "1", "--train_batch_size", "4", "--fisher_samples", "4", "--eval_samples_per_class"]
    code, _, text = run_script(SCRIPT, "--output_dir", folder, *flags, "4")
    lines = [line for line in text.splitlines() if "error:" in line]
    assert code == 2 and len(lines) == 1 and FULL in lines[0] and "Traceback" not in text, text
    after = contents(folder)
    after.pop("stages.json", None)  # how long the stages took that were done
    assert after == before


def test_a_read_only_folder_is_one_line(small, run_script):
    folder = small(1000) / "out"
    folder.mkdir()
    Stages(folder, ["a"]).finish("a", 1)
    small.read_only()
    before = contents(folder)
    code, _, text = run_script(SCRIPT, "--output_dir", folder)
    assert (code, text.count("error:")) == (2, 1) and "cannot be written (Read-only file system)" in text
    with pytest.raises(OSError, match="Read-only file system"):
        trainer_of(folder).train()
    with pytest.raises(OSError, match="stages.json could not be written .Read-only file system.; what was there"):
        Stages(folder, ["a"]).finish("a", 2)
    with pytest.raises(OSError, match="Read-only file system"):
        export(NoisePrediction(tiny_pipeline()), folder)
    assert contents(folder) == before
