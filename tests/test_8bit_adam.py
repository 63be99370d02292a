"""bitsandbytes' 8-bit Adam in the retain steps, if its extra is installed: it runs on CPUs too."""

import pytest
import torch
from conftest import config, random_images, tiny_unet
from diffusers import DDIMScheduler

from hf_unlearn import ClassConditionalDDPMPipeline, SFRon, UnlearnTrainer, split_by_label

pytest.importorskip("bitsandbytes", reason="pip install 'hf-unlearn[adam8bit]': no other test needs it")
METHODS = {"separate": SFRon(), "shared": SFRon(forget_optim="shared"), "slow": SFRon(slow_rate=0.5)}


def pipeline() -> ClassConditionalDDPMPipeline:
    """Wide enough that weights have 8-bit states: those of fewer than 4096 stay in full."""
    return ClassConditionalDDPMPipeline(tiny_unet(widths=(32, 32)), DDIMScheduler(1000), null_class=4)


def trained(folder, method, resume=None, **values) -> UnlearnTrainer:
    values = dict(optim="adamw_bnb_8bit", max_steps=4, save_strategy="steps", save_steps=2, **values)
    sets = split_by_label(random_images(), 1)
    trainer = UnlearnTrainer(pipeline(), config(folder, **values), method, *sets)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def weights(trainer):
    return {n: v.clone() for n, v in trainer.objective.network.state_dict().items()}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_resumed_equals_straight_and_nothing_outside_the_mask_moves(tmp_path, method):
    straight = trained(tmp_path / "a", method, verify_mask_steps=1)
    states = {v.dtype for s in straight.optimizer.state.values() for v in s.values() if torch.is_tensor(v)}
    assert torch.uint8 in states
    resumed = trained(tmp_path / "b", method, str(tmp_path / "a/checkpoint-2"), verify_mask_steps=1)
    one, other, start = weights(straight), weights(resumed), pipeline().unet.state_dict()
    assert all(torch.equal(one[n], other[n]) for n in one)
    assert any(not torch.equal(one[n], start[n]) for n in one) and straight.verify_mask() == 0
