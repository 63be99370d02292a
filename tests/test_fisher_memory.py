"""The Fisher pass holds one weight's gradient at a time, and the sums that there is room for."""

import gc
import math

import pytest
import torch
from conftest import config, tiny_pipeline
from diffusers import DDIMScheduler, UNet2DModel
from families import family_case
from torch.profiler import ProfilerActivity, profile

from hf_unlearn import ClassConditionalDDPMPipeline, NoisePrediction, SFRon, UnlearnTrainer
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.data.pairs import collate
from hf_unlearn.saliency import ranks
from hf_unlearn.saliency.fisher import fisher
from hf_unlearn.saliency.ranks import find_salient_target_modules, layer_scores, lora_layers
from hf_unlearn.saliency.squares import Squares, sample_chunk, strides


def middling() -> NoisePrediction:
    """0.6M weights on 8x8 images."""
    torch.manual_seed(0)
    blocks = dict(down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"))
    sizes = dict(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(32, 64), layers_per_block=1)
    unet = UNet2DModel(**sizes, **blocks, attention_head_dim=16, num_class_embeds=5)
    return NoisePrediction(ClassConditionalDDPMPipeline(unet, DDIMScheduler(1000), null_class=4))


def peak(call) -> int:
    """Bytes that torch's allocator held at most beyond what it held before."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    held = most = 0
    for event in sorted(record.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def by_hand(objective, items) -> dict[str, torch.Tensor]:
    named = {n: p for n, p in objective.network.named_parameters() if p.requires_grad}
    batch = collate(items)
    batch.update(objective.forget_draw(objective.draw(batch, torch.Generator().manual_seed(0))))
    total = {n: torch.zeros_like(p) for n, p in named.items()}
    for i in range(len(items)):
        loss = objective.eval()(**{k: v[i : i + 1] for k, v in batch.items()}).mean()
        for (n, _), g in zip(named.items(), torch.autograd.grad(loss, list(named.values()), allow_unused=True)):
            total[n] = total[n] if g is None else total[n].addcmul(g, g)
    return {n: t / len(items) for n, t in total.items()}


@pytest.mark.parametrize("family", ["unet", "sd", "vit"])
def test_it_has_the_bits_of_a_loop_by_hand(family):
    """Also with activations that are computed again, and whatever gradients the weights hold."""
    objective, forget, _ = family_case(family)
    expected = by_hand(objective, [forget[i] for i in range(3)])
    weight = next(p for p in objective.network.parameters() if p.requires_grad)
    weight.grad = torch.ones_like(weight)
    for checkpointed in (False, True):
        if checkpointed:
            objective.activation_checkpointing_enable()
        found, _ = fisher(objective, [forget[i] for i in range(3)], True, chunk=1)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[n], expected[n]) for n in expected)
    assert torch.equal(weight.grad, torch.ones_like(weight))


def test_no_two_gradients_are_held():
    objective = middling()
    data = ArrayDataset(torch.rand(2, 1, 8, 8) * 2 - 1, torch.zeros(2, dtype=torch.long))
    sizes = [4 * p.numel() for p in objective.network.parameters()]
    squares = Squares(objective, "sample")
    batch = {**collate([data[0]]), **objective.draw(collate([data[0]]), torch.Generator().manual_seed(0))}
    squares.add(batch, 1, chunk=1)  # whatever is allocated once
    kept = peak(lambda: squares.objective(**batch))  # the activations of a forward
    assert peak(lambda: squares.add(batch, 1, chunk=1)) < kept + 3 * max(sizes) < kept + sum(sizes) / 2


def test_checkpointed_activations_save_memory_in_the_pass():
    objective = middling()
    data = [{"pixel_values": torch.rand(1, 8, 8), "labels": torch.tensor(0)}]
    fisher(objective, data, True, chunk=1)
    plain = peak(lambda: fisher(objective, data, True, chunk=1))
    objective.activation_checkpointing_enable()
    assert peak(lambda: fisher(objective, data, True, chunk=1)) < plain


def test_the_masks_of_a_training_are_computed_with_checkpointed_activations(tmp_path, monkeypatch):
    """What the training switches on for its steps holds for the Fisher pass before them."""
    objective, *data = family_case("unet")
    seen, add = [], Squares.add

    def look(self, *args):
        seen.append(any(getattr(module, "gradient_checkpointing", False) for module in objective.network.modules()))
        return add(self, *args)

    monkeypatch.setattr(Squares, "add", look)
    method = SFRon(use_mask=True, fisher_samples=4)
    UnlearnTrainer(objective, config(tmp_path, activation_checkpointing=True), method, *data).train()
    assert seen and all(seen)


def test_a_chunk_also_holds_what_forwards_keep():
    parameters = dict(tiny_pipeline().unet.named_parameters())
    assert sample_chunk(parameters, 32) == 32
    assert sample_chunk(parameters, 32, kept=2**29 // 9) == 9
    assert sample_chunk(parameters, 32, kept=2**29 // 7) == 1


@pytest.mark.parametrize("share", [0.9, 0.3, 0.05])
def test_the_sums_take_the_room_that_is_given(share):
    objective = middling()
    named = dict(objective.network.named_parameters())
    room = int(8 * sum(p.numel() for p in named.values()) * share)
    found = Squares(objective, "sample", room)
    assert 0.3 * room < 8 * sum(s.numel() for s in found.sums.values()) <= room
    for name, stride in strides(named, room).items():
        assert stride == 1 or math.gcd(stride, named[name][0].numel()) == 1
        assert stride == 1 or named[name].numel() > 500  # small tensors stay whole


def test_what_is_summed_of_a_weight_are_its_entries():
    objective = middling()
    data = [{"pixel_values": torch.rand(1, 8, 8), "labels": torch.tensor(i % 4)} for i in range(3)]
    named = dict(objective.network.named_parameters())
    room = 2 * sum(p.numel() for p in named.values())
    whole, thin = (fisher(objective, data, True, room=given)[0] for given in (None, room))
    steps = strides(named, room)
    assert max(steps.values()) > 1
    for name, value in thin.items():
        expected = whole[name] if steps[name] == 1 else whole[name].flatten()[:: steps[name]]
        assert torch.equal(value, expected)


def test_scores_of_every_other_weight_are_nearly_those_of_all(monkeypatch):
    objective = middling()
    torch.manual_seed(1)
    sets = [[{"pixel_values": torch.rand(1, 8, 8), "labels": torch.tensor(c)} for _ in range(8)] for c in (0, 1)]
    layers = lora_layers(objective.network)
    room = 2 * sum(p.numel() for p in objective.network.parameters())  # a quarter of all
    pairs = [[fisher(objective, s, f, room=r)[0] for s, f in zip(sets, (True, False))] for r in (None, room)]
    whole, thin = (layer_scores(layers, *pair) for pair in pairs)
    values = torch.tensor([[whole[n], thin[n]] for n in layers if whole[n]])
    assert (values[:, 1] / values[:, 0] - 1).abs().median() < 0.1
    assert torch.corrcoef(values.log().T)[0, 1] > 0.95

    # What the sums take follows the training: of a large batch all weights, of one sample the least.
    taken = []
    monkeypatch.setattr(ranks, "fisher", lambda *a, room, **k: taken.append(room) or fisher(*a, room=room, **k))
    find_salient_target_modules(objective, *sets)
    assert taken == [None, None]  # a small model
    monkeypatch.setattr(ranks, "SMALL", 1000)
    monkeypatch.setattr(ranks, "LEAST_ROOM", 1000)
    for size in (1, 64):
        find_salient_target_modules(objective, *sets, train_batch_size=size)
    small, _, large, _ = taken[2:]
    assert small < room < large
