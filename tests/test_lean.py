"""What --low_memory picks."""

from types import SimpleNamespace

import pytest
from test_estimate import middling

from hf_unlearn import SFRon
from hf_unlearn.cli.estimates import memory
from hf_unlearn.cli.flags import LoraFlags, TrainingFlags
from hf_unlearn.cli.lean import choose, settings, taken
from hf_unlearn.training.recipes import digits_resnet


def test_low_memory_changes_the_flags_and_says_how():
    """To the setting that changes least; what it chooses itself cannot be given beside it."""
    network, method = middling().unet.to("meta"), SFRon()

    def run(**training):
        values = TrainingFlags(**{"train_batch_size": 16, **training})
        return SimpleNamespace(lora=LoraFlags(), training=values, method=method, side=None, parts=[LoraFlags()])

    plain = run()
    assert "all weights fit as they are" in choose(plain, network, method, "masked", 2**40)
    assert not plain.lora.use_lora and plain.training.train_batch_size == 16
    needed = memory(network, "masked", method, 16).most
    lean = run()
    said = choose(lean, network, method, "masked", needed // 3)
    assert said.startswith("low memory: --use_lora --lora_select all --rank 8")
    assert lean.lora.use_lora and lean.lora.lora_select == "all" and lean.parts == [lean.lora]
    assert all(p.requires_grad for p in network.parameters())  # the sketch is as it was
    with pytest.raises(ValueError, match="nothing that --low_memory knows fits"):
        choose(run(), network, method, "masked", 2**20)
    with pytest.raises(ValueError, match="--low_memory chooses --gradient_checkpointing itself"):
        choose(run(gradient_checkpointing=True), network, method, "masked", 2**40)


def test_all_weights_are_trained_in_less_memory_before_an_adapter_is():
    """The same result first, then moments in 8 bits, then bf16 weights; each is the first that fits its own peak."""
    network, method = middling().unet.to("meta"), SFRon()
    every = list(settings(network, masked=True))
    names = [setting.flags for setting in every[:5]]
    assert names == [
        "",
        "--masked_moments",
        "--gradient_checkpointing --masked_moments",
        "--gradient_checkpointing --masked_moments --use_8bit_adam",
        "--gradient_checkpointing --masked_moments --use_8bit_adam --bf16_weights",
    ]
    assert not any(setting.lora for setting in every[:5]) and all(setting.lora for setting in every[5:])
    peaks = [taken(network, setting, method, "masked", 2, None).peak for setting in every[:5]]
    assert peaks == sorted(peaks, reverse=True) and peaks[-1] < 0.6 * peaks[0]
    assert [s.flags for s in settings(network)][:2] == ["", "--gradient_checkpointing"]  # without a mask
    run = SimpleNamespace(lora=LoraFlags(), training=TrainingFlags(train_batch_size=2), method=method, side=None)
    free = int(taken(network, every[4], method, "masked", 2, None).most / 0.9) + 2**10
    assert "--use_8bit_adam --bf16_weights" in choose(run, network, method, "masked", free)
    assert run.training.bf16_weights and run.training.use_8bit_adam and run.training.masked_moments
    run.training.gradient_checkpointing = run.training.masked_moments = run.training.use_8bit_adam = False
    with pytest.raises(ValueError, match="--low_memory chooses --bf16_weights itself"):
        choose(run, network, method, "masked", free)


def test_running_statistics_are_not_kept_in_bf16():
    assert not any(setting.saving.bf16_weights for setting in settings(digits_resnet().to("meta"), masked=True))
