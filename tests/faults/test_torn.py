"""A torn checkpoint is named and skipped for the one before it; rotation never takes the last whole one."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from conftest import config, random_images, tiny_pipeline
from safetensors.torch import load_file

from hf_unlearn import FineTune, UnlearnTrainer, split_by_label
from hf_unlearn.saving.checkpoints import MANIFEST, damage, find_checkpoint, rotate, seal


def trainer_of(folder, **values) -> UnlearnTrainer:
    values = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "guard_steps": 0, **values}
    return UnlearnTrainer(tiny_pipeline(), config(folder, **values), FineTune(), *split_by_label(random_images(), 1))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of six steps with checkpoints 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("finished")
    trainer = trainer_of(folder)
    trainer.train()
    trainer.save_model()
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "optimizer.pt has .* bytes instead of": ("optimizer.pt", cut),
    "model.safetensors has other content than was written": ("model.safetensors", zero),
    "optimizer.pt has other content": ("optimizer.pt", flip),
    "rng_state.pth is missing": ("rng_state.pth", Path.unlink),
    "trainer_state.json has other content": ("trainer_state.json", zero),
    "manifest.json is missing: it was not written to its end": (MANIFEST, Path.unlink),
    "manifest.json is torn": (MANIFEST, cut),
    "manifest.json is torn ": (MANIFEST, zero),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_a_torn_checkpoint_is_named_and_skipped(run, reason):
    name, tear = DAMAGE[reason]
    tear(run / "checkpoint-6" / name)
    with pytest.warns(UserWarning, match=f"checkpoint-6 is skipped: {reason.strip()}"):
        assert find_checkpoint(run, "latest") == str(run / "checkpoint-4")
    with pytest.raises(ValueError, match=f"checkpoint-6 is torn: {reason.strip()}"):
        find_checkpoint(run, str(run / "checkpoint-6"))


def test_strange_folders_are_no_checkpoints(run):
    for name in ("checkpoint-6.partial", "checkpoint-x", "checkpoint-"):
        (run / name).mkdir()
    (run / "checkpoint-9").write_text("a file")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_checkpoint(run, True) == str(run / "checkpoint-6")


def test_resumed_from_the_one_before_it_ends_in_the_same_bytes(run, finished):
    """The torn ones are written anew on the way."""
    zero(run / "checkpoint-6/optimizer.pt")
    (run / "checkpoint-4" / MANIFEST).unlink()
    with pytest.warns(UserWarning) as caught:
        trainer_of(run).train(resume_from_checkpoint=True)
    skipped = [str(w.message).split(":")[0].split("/")[-1] for w in caught if "is skipped" in str(w.message)]
    assert skipped == ["checkpoint-6 is skipped", "checkpoint-4 is skipped"]
    ours, theirs = (load_file(f / "checkpoint-6/model.safetensors") for f in (run, finished))
    assert all(torch.equal(ours[n], v) for n, v in theirs.items()) and damage(run / "checkpoint-4") is None


def test_none_whole_is_one_line(run):
    for step in (2, 4, 6):
        cut(run / f"checkpoint-{step}/model.safetensors")
    with pytest.warns(UserWarning), pytest.raises(ValueError) as error:
        find_checkpoint(run, "latest")
    text = str(error.value)
    assert "no whole checkpoint in" in text and text.count("model.safetensors has") == 3 and "\n" not in text
    with pytest.warns(UserWarning):
        assert find_checkpoint(run, "auto") is None


def test_resumed_from_the_last_step_takes_none_more(run, finished):
    """Stock Trainer takes a seventh step here: six is in the middle of an epoch of four."""
    trainer = trainer_of(run)
    trainer.train(resume_from_checkpoint="auto")
    assert trainer.state.global_step == 6
    ours, saved = trainer.objective.network.state_dict(), load_file(finished / "checkpoint-6/model.safetensors")
    assert all(torch.equal(v, saved[f"network.{n}"]) for n, v in ours.items())


def test_the_older_one_goes_only_when_the_newer_one_is_whole(tmp_path, monkeypatch):
    """With room for one, at every moment of the second save one is whole."""
    seen = []

    def watched(folder):
        seen.append([damage(f) is None for f in sorted(tmp_path.glob("checkpoint-*"))])
        seal(folder)
        seen.append([damage(f) is None for f in sorted(tmp_path.glob("checkpoint-*"))])

    monkeypatch.setattr("hf_unlearn.training.checkpointer.seal", watched)
    trainer = trainer_of(tmp_path, max_steps=4, save_total_limit=1)
    trainer.train()
    assert seen == [[False], [True], [True, False], [True, True]]
    assert [f.name for f in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"] and trainer.args.save_total_limit == 1


def test_rotation_keeps_the_newest_whole_and_the_best(tmp_path):
    for step in range(1, 6):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_text(str(step))
        if step != 4:
            seal(folder)
    rotate(tmp_path, None, None)
    assert len(list(tmp_path.iterdir())) == 5
    rotate(tmp_path, 2, str(tmp_path / "checkpoint-1"))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-5"]
    assert json.loads((tmp_path / "checkpoint-5" / MANIFEST).read_text())["files"]["model.safetensors"][0] == 1
