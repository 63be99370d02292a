"""What --low_memory picks."""

from types import SimpleNamespace

import pytest
from test_estimate import middling

from hf_unlearn import SFRon
from hf_unlearn.cli.estimates import memory
from hf_unlearn.cli.flags import LoraFlags
from hf_unlearn.cli.lean import choose


def test_low_memory_changes_the_flags_and_says_how():
    """To the setting that changes least; what it chooses itself cannot be given beside it."""
    network, method = middling().unet.to("meta"), SFRon()

    def run(**training):
        values = SimpleNamespace(
            **{"train_batch_size": 16, "gradient_checkpointing": False, "mask_path": None, **training}
        )
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
