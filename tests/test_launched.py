"""Processes that a launcher starts are one run, and no device but the CPU is taken for a CPU."""

import accelerate.state
import pytest
import torch
from accelerate import PartialState
from conftest import config

from hf_unlearn.common import devices


@pytest.fixture
def fresh_state():
    PartialState._reset_state()
    yield
    PartialState._reset_state()


def test_processes_that_do_not_know_of_each_other_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="WORLD_SIZE is 2, but this process runs alone.* ACCELERATE_USE_CPU=true"):
        config(tmp_path, use_cpu=False)


def test_a_launched_process_joins_the_others_on_the_cpu(monkeypatch):
    """As torchrun starts it, on a machine that has nothing else."""
    from hf_unlearn import UnlearnConfig

    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    seen = []

    class Two:
        num_processes, process_index, local_process_index = 2, 0, 0
        device, distributed_type = torch.device("cpu"), accelerate.state.DistributedType.MULTI_CPU

        def __init__(self, cpu=False, **options):
            seen.append(cpu)

    monkeypatch.setattr("transformers.training_args.PartialState", Two)
    assert UnlearnConfig("x").world_size == 2 and seen == [True]


@pytest.mark.parametrize("device", ["mps", "xpu", "npu", "cuda"])
def test_other_devices_are_no_cpu(monkeypatch, fresh_state, device):
    """They are found as accelerate finds them."""
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    assert devices.runs_on_cpu() and devices.joined_state().device.type == "cpu"
    PartialState._reset_state()
    if device == "npu":  # torch knows the name once torch_npu is imported
        monkeypatch.setattr(PartialState, "default_device", property(lambda _: torch.device("maia")))
        device = "maia"
    elif device == "cuda":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    else:
        monkeypatch.setattr(accelerate.state, f"is_{device}_available", lambda *_, **__: True)
    monkeypatch.setattr(accelerate.state, "check_cuda_p2p_ib_support", lambda: True)
    assert not devices.runs_on_cpu() and devices.joined_state().device.type == device


def test_the_cpu_may_be_asked_for(monkeypatch):
    monkeypatch.setattr(accelerate.state, "is_mps_available", lambda *_, **__: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert devices.runs_on_cpu()
