"""bitsandbytes' 8-bit Adam in the retain steps, if its extra is installed: it runs on CPUs too."""

import pytest
import torch
from conftest import same, tiny_unet, unlearned, weights
from diffusers import DDIMScheduler

from hf_unlearn import ClassConditionalDDPMPipeline, SFRon, UnlearnTrainer

pytest.importorskip("bitsandbytes", reason="pip install 'hf-unlearn[adam8bit]': no other test needs it")
METHODS = {"separate": SFRon(), "shared": SFRon(forget_optim="shared"), "slow": SFRon(slow_rate=0.5)}


def pipeline() -> ClassConditionalDDPMPipeline:
    """Wide enough that weights have 8-bit states: those of fewer than 4096 stay in full."""
    return ClassConditionalDDPMPipeline(tiny_unet(widths=(32, 32)), DDIMScheduler(1000), null_class=4)


def trained(folder, method, resume=None) -> UnlearnTrainer:
    options = dict(optim="adamw_bnb_8bit", max_steps=4, save_strategy="steps", save_steps=2, verify_mask_steps=1)
    return unlearned(pipeline(), folder, method, resume, **options)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_resumed_equals_straight_and_nothing_outside_the_mask_moves(tmp_path, method):
    straight = trained(tmp_path / "a", method)
    states = {v.dtype for s in straight.optimizer.state.values() for v in s.values() if torch.is_tensor(v)}
    assert torch.uint8 in states
    resumed = trained(tmp_path / "b", method, str(tmp_path / "a/checkpoint-2"))
    one, other, start = weights(straight), weights(resumed), pipeline().unet.state_dict()
    assert same(one, other)
    assert any(not torch.equal(one[n], start[n]) for n in one) and straight.verify_mask() == 0
