"""bf16, as weights and as mixed precision, and activation checkpointing: every family trains, saves and reloads."""

import pytest
import torch
from conftest import config, same, weights
from families import family_case

from hf_unlearn import UnlearnTrainer
from hf_unlearn.methods import METHODS

FAMILIES = ("unet", "dit", "sd", "sdxl", "text_encoder", "vit", "resnet")


def trained(family, folder, method=None, dtype=torch.float32, **values):
    objective, *data = family_case(family)
    objective.network.to(dtype)
    for part in getattr(getattr(objective, "pipeline", None), "components", {}).values():
        if isinstance(part, torch.nn.Module):
            part.to(dtype)
    trainer = UnlearnTrainer(objective, config(folder, **{"max_steps": 1, **values}), method, *data)
    trainer.evaluate()
    trainer.train()
    return trainer


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("as_weights", [True, False], ids=["weights", "autocast"])
def test_bf16_trains_saves_and_reloads(tmp_path, family, as_weights):
    values = {"dtype": torch.bfloat16} if as_weights else {"bf16": True}
    trainer = trained(family, tmp_path, **values)
    start = family_case(family)[0].network.state_dict()
    trainer.save_model()
    ours, reloaded = weights(trainer), trainer.objective.reload_network(str(tmp_path)).state_dict()
    dtype = torch.bfloat16 if as_weights else torch.float32
    assert trainer.objective.dtype == dtype
    assert same(ours, {name: value.to(ours[name].dtype) for name, value in reloaded.items()})
    assert any(not torch.equal(value, start[name].to(value.dtype)) for name, value in ours.items())


def test_bf16_weights_resume_bit_for_bit(tmp_path):
    values = {"dtype": torch.bfloat16, "max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    straight = trained("unet", tmp_path, **values)
    objective, *data = family_case("unet")
    objective.network.bfloat16()
    resumed = UnlearnTrainer(objective, config(tmp_path, max_steps=2), None, *data)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert same(weights(straight), weights(resumed))


@pytest.mark.parametrize("family", ["unet", "dit", "sd", "text_encoder", "vit"])
def test_checkpointed_activations_change_nothing(tmp_path, family):
    plain, saving = (trained(family, tmp_path, activation_checkpointing=on) for on in (False, True))
    assert any(getattr(module, "gradient_checkpointing", False) for module in saving.objective.network.modules())
    ours, theirs = weights(plain), weights(saving)
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) <= 1e-6


def test_a_loss_at_shifted_weights_is_differentiated_there(tmp_path):
    """The activations are computed again in the backward pass, when the shift is undone."""
    found = [
        trained("vit", tmp_path, METHODS["lur"](form="first_order", look_ahead=0.5), activation_checkpointing=on)
        for on in (False, True)
    ]
    ours, theirs = (weights(trainer) for trainer in found)
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) <= 1e-6


def test_activations_that_cannot_be_checkpointed_are_refused(tmp_path):
    with pytest.raises(ValueError, match="ResNetForImageClassification cannot checkpoint its activations"):
        trained("resnet", tmp_path, activation_checkpointing=True)
    with pytest.raises(ValueError, match="lur differentiates gradients"):
        trained("vit", tmp_path, METHODS["lur"](), activation_checkpointing=True)


def test_batch_statistics_that_would_be_counted_twice_are_refused(tmp_path):
    objective, *data = family_case("resnet")
    objective.network.supports_gradient_checkpointing = True
    with pytest.raises(ValueError, match="BatchNorm of ResNetForImageClassification would count every batch twice"):
        UnlearnTrainer(objective, config(tmp_path, activation_checkpointing=True), None, *data)


def test_the_name_that_other_versions_of_transformers_call():
    objective, *_ = family_case("vit")
    objective.gradient_checkpointing_enable(gradient_checkpointing_kwargs=None)
    assert any(getattr(module, "gradient_checkpointing", False) for module in objective.network.modules())
