"""Adapters on frozen weights in half precision, or quantised by bitsandbytes where that is installed."""

import copy
from importlib.util import find_spec

import pytest
import torch
from conftest import config
from families import family_case

from hf_unlearn import SFRon, UnlearnTrainer, add_lora
from hf_unlearn.cli.flags import LoraFlags
from hf_unlearn.families.base import dtype_of
from hf_unlearn.saliency.ranks import choose_lora
from hf_unlearn.saving.adapters import base_copy, reloaded_adapter, save_adapter, tuner_layers

quantised = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="pip install 'hf-unlearn[quantised]'")
QUANTISED = [pytest.param(name, marks=quantised) for name in ("nf4", "int8")]
ALL = ["bf16", "fp16", *QUANTISED]
NEAR = {"fp32": 0, "bf16": 0.02, "fp16": 0.005, "nf4": 0.3, "int8": 0.05}  # of the output, relative


def adapted(precision, family="sd"):
    objective, forget, retain = family_case(family)
    objective.check(forget[0], [0, 1])
    config = choose_lora(objective, forget, retain, "all", rank=2)
    add_lora(objective, config, base_precision=precision)
    return objective, forget, retain


def output(objective, network=None):
    args, kwargs = objective.probe(torch.Generator().manual_seed(0))
    with torch.no_grad():
        return (network or objective.network).eval()(*args, **kwargs, return_dict=False)[0]


def bytes_of(network) -> int:
    return sum(p.numel() * p.element_size() for p in network.parameters() if not p.requires_grad)


@pytest.mark.parametrize("family", ["sd", "unet", "dit", "vit", "resnet"])
@pytest.mark.parametrize("precision", ALL)
def test_a_low_base_predicts_nearly_what_the_model_does(precision, family):
    """Its factors are those of the fp32 run in fp32, and its output, which pipelines take, is fp32."""
    full, low = adapted("fp32", family)[0], adapted(precision, family)[0]
    expected, found = output(full), output(low)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).norm() <= NEAR[precision] * expected.norm()
    factors = [{n: p for n, p in o.network.named_parameters() if p.requires_grad} for o in (full, low)]
    assert all(torch.equal(p, factors[1][n]) and p.dtype == torch.float32 for n, p in factors[0].items())
    assert dtype_of(low.network) == (torch.float16 if precision == "fp16" else torch.bfloat16)
    assert bytes_of(low.network) <= 0.55 * bytes_of(full.network)
    assert torch.equal(output(low, base_copy(low.network)), found)  # the original beside it


@pytest.mark.parametrize("precision", ALL)
def test_a_run_saves_an_adapter_that_plain_pipelines_load(tmp_path, precision):
    objective, forget, retain = adapted(precision)
    frozen = {n: p.clone() for n, p in objective.network.named_parameters() if not p.requires_grad}
    options = dict(max_steps=3, per_device_train_batch_size=2, learning_rate=1e-2)
    trainer = UnlearnTrainer(objective, config(tmp_path, **options), SFRon(), forget, retain)
    trainer.train()
    trainer.save_model()  # loads it again and compares
    named = dict(objective.network.named_parameters())
    assert all(torch.equal(named[n], value) for n, value in frozen.items())
    assert any(p.abs().max() > 0 for n, p in named.items() if "lora_B" in n)
    plain, *_ = family_case("sd")
    before = output(plain)
    plain.pipeline.load_lora_weights(tmp_path)
    moved = output(plain, plain.pipeline.unet)
    change = output(objective) - output(objective, base_copy(objective.network))
    assert ((moved - before) - change).norm() <= (0.2 + NEAR[precision]) * change.norm()


@pytest.mark.parametrize("precision", ["bf16", *QUANTISED])
def test_a_resumed_run_equals_a_straight_one(tmp_path, precision):
    found = []
    for name, resume in (("a", None), ("b", str(tmp_path / "a/checkpoint-2"))):
        objective, forget, retain = adapted(precision, "unet")
        options = dict(max_steps=4, save_strategy="steps", save_steps=2, learning_rate=1e-3)
        trainer = UnlearnTrainer(objective, config(tmp_path / name, **options), SFRon(), forget, retain)
        trainer.train(resume)
        found.append({n: p for n, p in objective.network.named_parameters() if p.requires_grad})
    assert all(torch.equal(p, found[1][n]) for n, p in found[0].items())


@pytest.mark.parametrize("precision", QUANTISED)
def test_a_copy_shares_the_quantised_weights(precision):
    objective = adapted(precision)[0]
    output(objective)
    held = {p.data_ptr() for p in objective.network.parameters()}
    assert all(p.data_ptr() in held for p in base_copy(objective.network).parameters())


def test_factors_reload_in_full_on_a_half_base(tmp_path):
    objective = adapted("bf16", "unet")[0]
    for name, p in objective.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(0))
    save_adapter(objective, tmp_path)
    again = reloaded_adapter(objective, tmp_path)
    assert torch.equal(output(objective, again), output(objective))
    assert {p.dtype for layer in tuner_layers(again).values() for p in layer.lora_A.parameters()} == {torch.float32}


def test_what_does_not_work_is_one_line(monkeypatch):
    objective, forget, retain = family_case("unet")
    lora = choose_lora(objective, forget, retain, "all", rank=2)
    for options, said in (
        ({"base_precision": "int4"}, "one of fp32, bf16, fp16, nf4, int8"),
        ({"base_precision": "bf16", "merge": True}, "merge needs all weights in full"),
    ):
        with pytest.raises(ValueError, match=said):
            add_lora(copy.deepcopy(objective), lora, **options)
    with pytest.raises(ValueError, match="--base_precision is for adapters: add --use_lora"):
        LoraFlags(base_precision="bf16")
    monkeypatch.setattr("hf_unlearn.saliency.bases.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs bitsandbytes: pip install 'hf-unlearn\[quantised\]'"):
        LoraFlags(use_lora=True, base_precision="nf4")
    assert objective.adapter is None
