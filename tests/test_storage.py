"""Weights on disk: tied and channels_last ones (which the stock save refuses), torn files, strangers' files."""

import json

import pytest
import torch
from conftest import tiny_pipeline
from safetensors.torch import load_file, save_file
from torch import nn

from hf_unlearn import NoisePrediction
from hf_unlearn.common.weights import load_weights, save_weights, weights_digest
from hf_unlearn.saliency.masks import Masks
from hf_unlearn.saving.export import check_reload, export, load_checkpoint, save_checkpoint


class Tied(nn.Module):
    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("count", torch.tensor(seed))


def test_tied_and_channels_last_weights_come_back(tmp_path):
    ours, other = Tied(0), Tied(1)
    assert not ours.conv.weight.is_contiguous()
    save_weights(ours, tmp_path / "w.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
    assert "second.weight" not in load_file(tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    assert all(torch.equal(v, other.state_dict()[n]) for n, v in ours.state_dict().items())
    assert other.second.weight is other.first.weight


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_weights_of_another_model_are_refused(tmp_path, change):
    save_weights(Tied(0), tmp_path / "w.safetensors")
    weights = load_file(tmp_path / "w.safetensors")
    if change == "missing":
        del weights["first.bias"]
    else:
        weights["third.bias"] = torch.zeros(1)
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="does not belong to this model"):
        load_weights(Tied(1), tmp_path / "w.safetensors")


def test_a_torn_write_leaves_the_old_file(tmp_path, monkeypatch):
    save_weights(Tied(0), tmp_path / "w.safetensors")
    before = (tmp_path / "w.safetensors").read_bytes()

    def torn(tensors, path, metadata=None):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("hf_unlearn.common.weights.save_file", torn)
    with pytest.raises(OSError, match="disk full"):
        save_weights(Tied(1), tmp_path / "w.safetensors")
    assert (tmp_path / "w.safetensors").read_bytes() == before


def test_checkpoint_holds_masks_profile_and_state(tmp_path):
    objective = NoisePrediction(tiny_pipeline())
    masks = Masks({n: p > 0 for n, p in objective.network.named_parameters()}, {"gamma": "1.0"})
    profile, state = torch.rand(2, 10), {"best": {"step": 3}, "first_retain": 0.1 + 0.2}
    save_checkpoint(tmp_path / "c", objective, masks, profile, state)
    read_masks, read_profile, read_state = load_checkpoint(tmp_path / "c")
    assert torch.equal(read_profile, profile) and read_state == state and read_masks.metadata == masks.metadata
    assert all(torch.equal(read_masks.tensors[n], m) for n, m in masks.tensors.items())
    save_checkpoint(tmp_path / "d", objective, None, None, {})
    assert load_checkpoint(tmp_path / "d") == (None, None, {})
    with pytest.raises(ValueError, match="not a checkpoint of UnlearnTrainer"):
        load_checkpoint(tmp_path)


def test_check_reload_sees_weights_and_configuration(tmp_path):
    """A changed config with equal weights changes what the folder computes."""
    objective = NoisePrediction(tiny_pipeline())
    objective.network.train()
    objective.save_pretrained(str(tmp_path))
    check_reload(objective, str(tmp_path))
    assert objective.network.training
    config = tmp_path / "unet/config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "freq_shift": 1}))
    with pytest.raises(RuntimeError, match="one forward differs"):
        check_reload(objective, str(tmp_path))
    config.write_text(json.dumps(values))
    weights = tmp_path / "unet/diffusion_pytorch_model.safetensors"
    save_file({**load_file(weights), "conv_out.bias": torch.ones(1)}, weights, metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match="conv_out.bias differs"):
        check_reload(objective, str(tmp_path))


def test_saved_configs_name_a_hub_model_and_no_folder_of_this_machine(tmp_path):
    pipeline = tiny_pipeline()
    for name, expected in ((str(tmp_path / "base" / "unet"), None), ("user/some-model", "user/some-model")):
        pipeline.unet.register_to_config(_name_or_path=name)
        export(NoisePrediction(pipeline), tmp_path / "out")
        config = json.loads((tmp_path / "out" / "unet" / "config.json").read_text())
        assert config.get("_name_or_path") == expected and config["_class_name"] == "UNet2DModel"
        assert not any(str(tmp_path) in path.read_text() for path in (tmp_path / "out").glob("**/*.json"))


def test_a_digest_does_not_depend_on_the_memory_format():
    """1x1 kernels in channels_last are contiguous in both formats, with strides that no byte view takes."""
    network = tiny_pipeline().unet
    assert any(p.ndim == 4 and p.shape[2:] == (1, 1) for p in network.parameters())
    plain = weights_digest(network)
    assert weights_digest(network.to(memory_format=torch.channels_last)) == plain
    assert weights_digest(tiny_pipeline(seed=1).unet) != plain
