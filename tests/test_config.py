"""Defaults that unlearning needs, and the values that are refused."""

import pytest
import torch

from hf_unlearn import UnlearnConfig
from hf_unlearn.training import config


def test_defaults_that_differ_from_the_stock_ones(tmp_path):
    config = UnlearnConfig(output_dir=str(tmp_path))
    assert not config.remove_unused_columns  # the batches are nested
    assert not config.logging_nan_inf_filter  # a diverging ascent must say so
    assert not config.ddp_find_unused_parameters and not config.ddp_broadcast_buffers
    assert config.hub_strategy == "end" and config.report_to == []
    assert config.gradient_accumulation_steps == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"remove_unused_columns": True}, "remove_unused_columns must be False"),
        ({"hub_strategy": "every_save"}, "masks, which stay local"),
        ({"hub_strategy": "all_checkpoints"}, "masks, which stay local"),
        ({"target_forget": 0.1}, "set eval_strategy and eval_steps"),
        ({"max_retain_drift": 0.1}, "set eval_strategy and eval_steps"),
    ],
)
def test_refusals_say_what_to_set(tmp_path, values, message):
    with pytest.raises(ValueError, match=message):
        UnlearnConfig(output_dir=str(tmp_path), **values)


def test_bf16_runs_where_there_is_only_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert UnlearnConfig(output_dir=str(tmp_path), bf16=True).use_cpu
    assert not UnlearnConfig(output_dir=str(tmp_path)).use_cpu


def test_8bit_adam_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "find_spec", lambda name: None)
    for optim in ("adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "lion_8bit"):
        with pytest.raises(ValueError, match=rf"^optim={optim} needs the extra hf_unlearn\[adam8bit\]"):
            UnlearnConfig(output_dir=str(tmp_path), optim=optim)
    assert UnlearnConfig(output_dir=str(tmp_path)).optim == "adamw_torch_fused"


def test_compilation_names_the_compiler_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setattr(config.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler on a CPU: install g\+\+ or set CXX"):
        UnlearnConfig(output_dir=str(tmp_path), torch_compile=True, use_cpu=True)
