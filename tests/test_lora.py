"""Adapters: which layers, of what rank; what is saved loads with peft or diffusers as it was; undo is exact."""

import copy

import pytest
import torch
from conftest import config
from families import family_case
from peft import LoraConfig, PeftModel
from torch import nn

from hf_unlearn import (
    SSD,
    SalUn,
    SFRon,
    UnlearnTrainer,
    find_salient_target_modules,
    load_adapter,
    remove_adapters,
    set_strengths,
)
from hf_unlearn.saliency.ranks import add_lora, allot_ranks, choose_lora, layer_scores, lora_layers, lora_size
from hf_unlearn.saving.adapters import base_copy, merged_copy, network_of, tuner_layers

FAMILIES = ["unet", "dit", "sd", "sdxl", "vit", "resnet"]


def trained(objective, forget, retain, folder, select="saliency", merge=False, **values):
    """The objective after two outer steps on an adapter, saved to `folder`."""
    add_lora(objective, choose_lora(objective, forget, retain, select, rank=2, lora_alpha=3), merge)
    args = config(folder, max_steps=2, learning_rate=1e-2, **values)
    trainer = UnlearnTrainer(objective, args, SFRon(), forget_dataset=forget, retain_dataset=retain)
    trainer.train()
    trainer.save_model()
    return trainer


@torch.no_grad()
def output(objective, network):
    args, kwargs = objective.probe(torch.Generator().manual_seed(0))
    return network.eval()(*args, **kwargs, return_dict=False)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_loads_onto_the_original_to_the_same_output(family, tmp_path):
    objective, forget, retain = family_case(family)
    original = copy.deepcopy(objective.network)
    pipeline = getattr(objective, "pipeline", None)
    trained(objective, forget, retain, tmp_path)
    wanted = output(objective, objective.network)
    assert (wanted - output(objective, original)).abs().max() > 1e-4
    if family in ("sd", "sdxl"):
        plain = type(pipeline)(**{**pipeline.components, "unet": copy.deepcopy(original)})
        plain.load_lora_weights(str(tmp_path), weight_name="pytorch_lora_weights.safetensors")
        loaded = plain.unet
    else:
        loaded = PeftModel.from_pretrained(copy.deepcopy(original), str(tmp_path))
    assert (output(objective, loaded) - wanted).abs().max() <= 1e-5
    ranks = {rank for layer in tuner_layers(loaded).values() for rank in layer.r.values()}
    assert len(ranks) > 1  # mixed, and the output was equal: the scales came along
    model = type(pipeline)(**{**pipeline.components, "unet": original}) if family in ("sd", "sdxl") else original
    before = output(objective, original)
    load_adapter(model, tmp_path, "forgets")
    assert (output(objective, network_of(model)) - wanted).abs().max() <= 1e-5
    remove_adapters(model)
    assert torch.equal(output(objective, network_of(model)), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_weights_load_as_a_whole_model(family, tmp_path):
    objective, forget, retain = family_case(family)
    trained(objective, forget, retain, tmp_path, merge=True)
    loaded = objective.reload_network(str(tmp_path))
    assert not tuner_layers(loaded)
    assert (output(objective, loaded) - output(objective, objective.network)).abs().max() <= 1e-5
    assert (tmp_path / "adapter").is_dir()  # undo stays possible


def test_the_teacher_is_the_network_without_its_adapter_and_owns_no_weights():
    objective, forget, retain = family_case("unet")
    original = copy.deepcopy(objective.network)
    add_lora(objective, choose_lora(objective, forget, retain, "all", rank=2))
    for p in objective.network.parameters():
        if p.requires_grad:
            nn.init.ones_(p)
    teacher = base_copy(objective.network)
    assert torch.equal(output(objective, teacher), output(objective, original))
    assert {id(p) for p in teacher.parameters()} <= {id(p) for p in objective.network.parameters()}
    merged = merged_copy(objective.network)
    assert torch.allclose(output(objective, merged), output(objective, objective.network), rtol=1e-4, atol=1e-4)
    assert torch.equal(output(objective, base_copy(objective.network)), output(objective, original))


@pytest.mark.parametrize("family", ["unet", "resnet"])
def test_only_factors_move_and_resumed_is_straight(family, tmp_path):
    objective, forget, retain = family_case(family)
    before = {n: v.clone() for n, v in objective.network.state_dict().items()}
    trainer = trained(objective, forget, retain, tmp_path / "a", save_strategy="steps", save_steps=1)
    assert trainer.masks is None and trainer.verify_mask() is None
    base = base_copy(objective.network).state_dict()
    assert all(torch.equal(base[n], v) for n, v in before.items())
    again, forget, retain = family_case(family)
    add_lora(again, choose_lora(again, forget, retain, rank=2, lora_alpha=3))
    args = config(tmp_path / "b", max_steps=2, learning_rate=1e-2)
    other = UnlearnTrainer(again, args, SFRon(), forget_dataset=forget, retain_dataset=retain)
    other.train(resume_from_checkpoint=str(tmp_path / "a/checkpoint-1"))
    states = (objective.network.state_dict(), again.network.state_dict())
    assert all(torch.equal(v, states[1][n]) for n, v in states[0].items())


def test_two_adapters_are_weighted_and_taken_off(tmp_path):
    objective, forget, retain = family_case("unet")
    original = copy.deepcopy(objective.network)
    trained(objective, forget, retain, tmp_path / "one")
    second, _, _ = family_case("unet")
    trained(second, retain, forget, tmp_path / "two")
    network = copy.deepcopy(original)
    load_adapter(network, tmp_path / "one", "one")
    load_adapter(network, tmp_path / "two", "two")
    base = dict(original.named_parameters())
    for strengths in ({"one": 1.0, "two": 1.0}, {"one": 0.5, "two": 1.5}, {"two": 1.0}):
        set_strengths(network, strengths)
        by_hand = copy.deepcopy(original)
        for name, part in (("one", objective.network), ("two", second.network)):
            for layer, module in tuner_layers(part).items():
                weight = by_hand.get_parameter(f"{layer}.weight")
                weight.data += strengths.get(name, 0.0) * module.get_delta_weight("default").detach()
        assert torch.allclose(output(objective, network), output(objective, by_hand), atol=1e-5)
    set_strengths(network, {"one": 0.0})
    assert torch.equal(output(objective, network), output(objective, original))
    remove_adapters(network)
    assert torch.equal(output(objective, network), output(objective, original))
    assert set(dict(network.named_parameters())) == set(base)


def test_ranks_keep_to_the_budget_and_follow_the_scores():
    layers = {name: nn.Linear(6, 10) for name in "abc"}
    layers["d"] = nn.Conv2d(2, 4, 3)
    assert lora_size(layers["a"]) == 16 and lora_size(layers["d"], 2) == 2 * (2 * 9 + 4)
    scores = {"a": 8.0, "b": 1.0, "c": 0.0, "d": 3.0}
    for budget in (0.2, 0.5, 1.0):
        ranks = allot_ranks(layers, scores, 2, budget)
        used = sum(lora_size(layers[n], r) for n, r in ranks.items())
        assert used <= budget * sum(lora_size(layer, 2) for layer in layers.values())
        assert "c" not in ranks and ranks["a"] >= max(ranks.values())
    # By hand: 1.0 of (3 * 16 + 22) * 2 = 140; gains per weight 8, 8/2, 3, 8/3, 8/4 ...; of equal ones "a" comes first
    order = sorted((-scores[n] / (1 + k), n) for n in "abd" for k in range(8))
    left, by_hand = 140, dict.fromkeys("abd", 0)
    for _, n in order:
        limit = min(8, *(layers[n].weight.shape[0], layers[n].weight[0].numel()))
        if lora_size(layers[n]) <= left and by_hand[n] < limit:
            by_hand[n] += 1
            left -= lora_size(layers[n])
    assert allot_ranks(layers, scores, 2, 1.0) == {n: r for n, r in by_hand.items() if r}
    equal = dict.fromkeys(layers, 1.0)
    assert allot_ranks(layers, equal, 4, 0.5) == dict.fromkeys(layers, 2)  # the same score, the same rank


def test_a_layer_scores_what_it_holds_of_forgetting_over_what_it_holds_of_the_rest():
    layers = {name: nn.Linear(2, 1) for name in "abcd"}
    forget = {
        "a.weight": [[4.0, 1.0]],
        "b.weight": [[400.0, 100.0]],
        "c.weight": [[3.0, 0.0]],
        "d.weight": [[0.0, 0.0]],
    }
    retain = {
        "a.weight": [[1.0, 3.0]],
        "b.weight": [[500.0, 100.0]],
        "c.weight": [[0.0, 0.0]],
        "d.weight": [[0.0, 0.0]],
    }
    fishers = [{n: torch.tensor(v) for n, v in part.items()} for part in (forget, retain)]
    # a: 4 of 4, since 1 < 3 is not salient. b: the largest gradients, but 100 of 600. c: nothing to lose. d: dead.
    scores = layer_scores(layers, *fishers)
    assert scores == {"a": 1.0, "b": pytest.approx(1 / 6), "c": 1.0, "d": 0.0}
    assert layer_scores(layers, *fishers, threshold=0.5)["b"] == pytest.approx(5 / 6)


def test_half_the_budget_is_half_the_weights_and_the_scale_is_one():
    objective, forget, retain = family_case("unet")
    chosen = find_salient_target_modules(objective, forget, retain, rank=4, lora_alpha=8, rank_budget=0.5)
    assert set(chosen) == {"target_modules", "rank_pattern", "alpha_pattern"}
    uniform = sum(lora_size(layer, 4) for layer in lora_layers(objective.network).values())
    add_lora(objective, LoraConfig(r=4, lora_alpha=8, **chosen))
    factors = sum(p.numel() for p in objective.network.parameters() if p.requires_grad)
    assert 0.45 * uniform <= factors <= 0.5 * uniform
    assert {layer.scaling["default"] for layer in tuner_layers(objective.network).values()} == {2.0}


def test_cross_attention_only():
    objective, forget, retain = family_case("sd")
    add_lora(objective, choose_lora(objective, forget, retain, "xattn", rank=2))
    assert tuner_layers(objective.network) and all("attn2" in name for name in tuner_layers(objective.network))


def test_what_does_not_go_with_an_adapter_says_so(tmp_path):
    objective, forget, retain = family_case("unet")
    with pytest.raises(ValueError, match="no cross attention"):
        choose_lora(objective, forget, retain, "xattn")
    with pytest.raises(ValueError, match="one of saliency, all, xattn"):
        choose_lora(objective, forget, retain, "some")
    with pytest.raises(ValueError, match="rank_budget must lie"):
        choose_lora(objective, forget, retain, rank_budget=2.0)
    with pytest.raises(ValueError, match="no layer gets a rank"):
        choose_lora(objective, forget, retain, rank=1, rank_budget=1e-6)
    with pytest.raises(ValueError, match="holds no adapter"):
        load_adapter(objective.network, tmp_path)
    lora = choose_lora(objective, forget, retain, "all", rank=1)
    add_lora(objective, lora)
    with pytest.raises(ValueError, match="already"):
        add_lora(objective, lora)
    with pytest.raises(ValueError, match="no adapter 'x'"):
        set_strengths(objective.network, {"x": 1.0})
    for method in (SalUn(), SSD()):
        with pytest.raises(ValueError, match="do without LoRA"):
            UnlearnTrainer(objective, config(tmp_path), method, forget_dataset=forget, retain_dataset=retain)
