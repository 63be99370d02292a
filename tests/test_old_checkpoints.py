"""A checkpoint that version 0.1.0 wrote before the package was rearranged: it resumes to the same weights."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import config, random_images, tiny_vit
from safetensors.torch import load_file

from hf_unlearn import SFRon, UnlearnTrainer, split_by_label

OLD = Path(__file__).parent / "golden"


def trainer_of(folder, method: SFRon) -> UnlearnTrainer:
    args = config(folder, learning_rate=5e-4, max_steps=4, save_strategy="steps", save_steps=2)
    return UnlearnTrainer(tiny_vit(), args, method, *split_by_label(random_images(), 1))


def test_an_old_checkpoint_resumes_to_the_weights_of_the_old_run(tmp_path):
    shutil.copytree(OLD / "checkpoint-2", tmp_path / "checkpoint-2")
    trainer = trainer_of(tmp_path, SFRon())
    trainer.train(resume_from_checkpoint="latest")
    wanted = load_file(OLD / "resumed.safetensors")
    found = trainer.objective.network.state_dict()
    assert trainer.state.global_step == 4 and found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], wanted[name], rtol=0, atol=1e-6) for name in wanted)


def test_an_old_checkpoint_of_other_options_is_refused_in_one_line(tmp_path):
    shutil.copytree(OLD / "checkpoint-2", tmp_path / "checkpoint-2")
    with pytest.raises(ValueError, match=r"was written with options \{'retain_steps': 2\}, this run has"):
        trainer_of(tmp_path, SFRon(retain_steps=1)).train(resume_from_checkpoint="latest")
