"""Running out of memory ends in one line that names what to try, whoever ran out of it."""

import pytest
import torch
from conftest import config, tiny_pipeline

from hf_unlearn import SFRon, UnlearnTrainer, split_by_label
from hf_unlearn.cli import parsing as cli
from hf_unlearn.common.errors import OutOfMemory, spare_memory

CPU = (
    "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 123 bytes."
)
GPU = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.1 GiB"
KINDS = {
    "cpu": RuntimeError(CPU),
    "gpu": torch.OutOfMemoryError(GPU),
    "driver": RuntimeError("CUDA error: out of memory"),
    "python": MemoryError(),
}
FLAGS = {
    "train": ("per_device_train_batch_size", "activation_checkpointing", "--use_lora"),
    "fisher": ("fisher_batch_size", "fisher=batch", "--use_lora"),
}


def trainer_that_fails(tmp_path, images, error, where):
    """A run whose `where` runs out of memory in a forward: at once in the Fisher pass, in train mode else."""
    pipeline = tiny_pipeline()
    trainer = UnlearnTrainer(pipeline, config(tmp_path), SFRon(use_mask=where == "fisher"), *split_by_label(images, 1))
    forward = pipeline.unet.forward

    def failing(*args, **kwargs):
        if where == "fisher" or pipeline.unet.training:
            raise error
        return forward(*args, **kwargs)

    pipeline.unet.forward = failing
    return trainer


@pytest.mark.parametrize("where", FLAGS)
@pytest.mark.parametrize("kind", KINDS)
def test_out_of_memory_names_three_flags(tmp_path, images, monkeypatch, capsys, kind, where):
    trainer = trainer_that_fails(tmp_path, images, KINDS[kind], where)
    monkeypatch.setattr("sys.argv", ["unlearn.py"])
    with pytest.raises(SystemExit) as stop:
        cli.run(trainer.train)
    said = capsys.readouterr().err.splitlines()
    line = [text for text in said if text.startswith("unlearn.py: error: out of memory")]
    assert stop.value.code == 2 and len(line) == 1 and "Traceback" not in "".join(said)
    assert all(flag in line[0] for flag in FLAGS[where])
    assert ("2.50 GiB more" in line[0]) == (kind == "gpu") and ("123 bytes more" in line[0]) == (kind == "cpu")


def test_a_real_allocation_that_fails_is_recognised():
    with pytest.raises(OutOfMemory, match="out of memory in a test .*per_device_train_batch_size"):
        with spare_memory("in a test"):
            torch.empty(2**55)


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match="shapes") as caught:
        with spare_memory("in a test"):
            raise RuntimeError("shapes do not match")
    assert not isinstance(caught.value, OutOfMemory)
