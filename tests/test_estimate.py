"""hf-unlearn estimate: its memory against the measured peak, its counts by hand, every family, what it refuses."""

import gc
import json
from types import SimpleNamespace

import pytest
import torch
from conftest import config, tiny_dit, tiny_pipeline, tiny_sd, tiny_sdxl, tiny_unet, tiny_vit
from diffusers import DDIMScheduler, UNet2DModel
from torch.profiler import ProfilerActivity, profile

from hf_unlearn import ClassConditionalDDPMPipeline, SFRon, UnlearnTrainer, add_lora, split_by_label
from hf_unlearn.__main__ import main
from hf_unlearn.cli.estimates import (
    Saving,
    adapted,
    arguments,
    device_at_hand,
    free_bytes,
    loss_of,
    memory,
    outline,
    pass_bytes,
)
from hf_unlearn.cli.times import Times
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.families import NoisePrediction
from hf_unlearn.saliency.ranks import choose_lora, lora_layers, lora_size

TOLERANCE = 0.15


@pytest.fixture
def estimate(monkeypatch, capsys):
    """`estimate(*arguments)`: (exit code, output, error)."""

    def call(*words) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["hf-unlearn", "estimate", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("make", "size"),
    [(tiny_pipeline, None), (tiny_dit, None), (tiny_sd, None), (tiny_sdxl, None), (tiny_vit, None)],
    ids=["ddpm", "dit", "sd", "sdxl", "classifier"],
)
def test_every_family_is_outlined_from_its_configuration(tmp_path, make, size):
    """The same names and shapes as the real network, and what a real forward keeps, with nothing allocated."""
    saved = make()
    saved.save_pretrained(tmp_path)
    network = saved if isinstance(saved, torch.nn.Module) else getattr(saved, "transformer", None) or saved.unet
    outlined = outline(str(tmp_path))
    assert {n: p.shape for n, p in outlined.named_parameters()} == {n: p.shape for n, p in network.named_parameters()}
    assert all(p.is_meta for p in outlined.parameters())
    loss_of(network, arguments(network, 2, "cpu")).backward()  # the arguments fit the real one
    two, four = (pass_bytes(outlined.train(), batch, None, Saving()) for batch in (2, 4))
    assert 0 < two < four <= 2 * two


def test_the_parts_by_hand():
    """fp32, Adam keeps two moments, a mask is a byte a weight, the Fisher pass a gradient for each sample."""
    network = tiny_unet()
    count = sum(p.numel() for p in network.parameters())
    method = SFRon(slow_rate=0.5, fisher_batch_size=16)
    found = memory(network.to("meta"), "masked", method, 4)
    assert found.lasting == {
        "weights": 4 * count,
        "retain optimizer": 8 * count,
        "forget optimizer": 8 * count,
        "copy of the original": 4 * count,
        "masks": count,
        "slow weights": 4 * count,
    }
    assert found.stepping == {"gradients": 4 * count, "weights kept outside the mask": 4 * count}
    assert found.preparing["gradients"] == 16 * 4 * count  # of a small model, by torch.func
    assert found.preparing["Fishers"] == 8 * count
    assert found.peak == 29 * count + max(8 * count, found.passes["activations"])
    plain = memory(network, "full", SFRon(forget_optim="shared", retain_loss="data"), 4)
    assert sum(plain.lasting.values()) == 12 * count and plain.preparation == 0


def test_what_is_offloaded_is_not_counted():
    network, method = tiny_unet().to("meta"), SFRon(slow_rate=0.5)
    held, elsewhere = (memory(network, "masked", method, 4, offload=on) for on in (False, True))
    assert held.peak - elsewhere.peak == 8 * held.trained  # two copies in fp32


def test_an_adapter_is_counted_as_it_is_made(images):
    network = adapted(tiny_unet().to("meta"), rank=2)
    objective = NoisePrediction(tiny_pipeline())
    forget, retain = split_by_label(images, 1)
    add_lora(objective, choose_lora(objective, forget, retain, select="all", rank=2))
    real = sum(p.numel() for p in objective.network.parameters() if p.requires_grad)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == real
    half = adapted(tiny_unet().to("meta"), rank=2, share=0.5)
    whole = sum(lora_size(layer, 2) for layer in lora_layers(tiny_unet()).values())
    assert 0.4 * whole < sum(p.numel() for p in half.parameters() if p.requires_grad) <= 0.5 * whole
    found = memory(network, "lora", SFRon(), 4)
    assert found.lasting["copy of the original"] == 0 and found.lasting["retain optimizer"] == 8 * real


def middling(seed: int = 0) -> ClassConditionalDDPMPipeline:
    """0.6M weights on 16x16 images."""
    torch.manual_seed(seed)
    blocks = dict(down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"))
    sizes = dict(sample_size=16, in_channels=1, out_channels=1, block_out_channels=(32, 64), layers_per_block=1)
    unet = UNet2DModel(**sizes, **blocks, attention_head_dim=16, num_class_embeds=5)
    return ClassConditionalDDPMPipeline(unet, DDIMScheduler(1000), null_class=4)


def measured_peak(trainer, outside: int) -> int:
    """Bytes that torch's allocator held at most during `train`, and `outside`, which was there before."""
    gc.collect()  # what earlier runs left would be counted as given back by this one
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        trainer.train()
    changes = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(changes, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return outside + most


@pytest.mark.parametrize(("mode", "batch"), [("full", 1), ("full", 16), ("masked", 1), ("masked", 16), ("lora", 16)])
def test_the_memory_is_what_a_run_takes(tmp_path, mode, batch):
    """Within 15 % of the measured peak, where the weights weigh most (batch 1) and where the activations do (16)."""
    pipeline, method = middling(), SFRon(use_mask=mode == "masked")
    images = ArrayDataset(torch.rand(40, 1, 16, 16) * 2 - 1, torch.arange(40) % 4)
    forget, retain = split_by_label(images, 1)
    masks = {n: torch.rand_like(p) < 0.5 for n, p in pipeline.unet.named_parameters()} if mode == "masked" else None
    outlined = middling().unet.to("meta")
    expected = memory(adapted(outlined, 4) if mode == "lora" else outlined, mode, method, batch)
    objective = NoisePrediction(pipeline)
    if mode == "lora":
        add_lora(objective, choose_lora(objective, forget, retain, select="all", rank=4))
    values = config(tmp_path, per_device_train_batch_size=batch, max_steps=2, guard_steps=0, verify_mask_steps=1)
    trainer = UnlearnTrainer(objective, values, method, forget, retain, masks=masks)
    outside = expected.lasting["weights"] + expected.lasting["masks"]
    measured = measured_peak(trainer, outside)
    assert abs(expected.peak / measured - 1) <= TOLERANCE, (expected.peak, measured)


@pytest.mark.parametrize(
    "saving",
    [
        dict(masked_moments=True),
        dict(use_8bit_adam=True),
        dict(bf16_weights=True),
        dict(masked_moments=True, use_8bit_adam=True, bf16_weights=True),
        dict(original_precision="bf16"),
    ],
    ids="-".join,
)
def test_what_saves_in_the_training_of_all_weights_is_what_a_run_takes(tmp_path, saving):
    """Within 15 % of the measured peak at batch 1, where the weights weigh most; the mask holds half of them."""
    pipeline, method = middling(), SFRon()
    images = ArrayDataset(torch.rand(40, 1, 16, 16) * 2 - 1, torch.arange(40) % 4)
    masks = {n: torch.rand_like(p) < 0.5 for n, p in pipeline.unet.named_parameters()}
    network = middling().unet.to("meta")
    plain, expected = (memory(network, "masked", method, 1, saving=Saving(**kept)) for kept in ({}, saving))
    values = config(tmp_path, per_device_train_batch_size=1, max_steps=2, guard_steps=0, verify_mask_steps=1, **saving)
    trainer = UnlearnTrainer(NoisePrediction(pipeline), values, method, *split_by_label(images, 1), masks=masks)
    measured = measured_peak(trainer, expected.lasting["weights"] + expected.lasting["masks"])
    assert abs(expected.peak / measured - 1) <= TOLERANCE, (expected.peak, measured)
    assert sum(expected.lasting.values()) < sum(plain.lasting.values())


def test_the_bytes_of_a_weight_by_hand():
    """29 of masked training; moments of the mask alone take 4 less, in 8 bits 12 less, bf16 weights and original 4."""
    network, method = tiny_unet().to("meta"), SFRon()
    count = sum(p.numel() for p in network.parameters())

    def lasting(mode="masked", **saving):
        return sum(memory(network, mode, method, 1, saving=Saving(**saving)).lasting.values()) / count

    assert lasting() == 25 and lasting("full") == 24
    assert lasting(masked_moments=True) == 21 and lasting("full", masked_moments=True) == 24
    assert lasting(use_8bit_adam=True) == pytest.approx(13 + 4 / 64, abs=1e-3)
    assert lasting(bf16_weights=True) == 21 and lasting(original_precision="bf16") == 23
    leanest = lasting(masked_moments=True, use_8bit_adam=True, bf16_weights=True)
    assert leanest == pytest.approx(8 + 3 / 64, abs=1e-3)
    adapter = adapted(tiny_unet().to("meta"), 2)
    every = Saving(masked_moments=True, bf16_weights=True, original_precision="bf16")
    assert memory(adapter, "lora", method, 1, saving=every) == memory(adapter, "lora", method, 1)


def test_an_outer_step_is_its_passes():
    times = Times(batch=2, forward=1.0, both=3.0, step=0.5)
    assert times.outer_step(SFRon(retain_steps=2), 4) == (3 * 3.0 + 3 * 1.0) * 2 + 3 * 0.5
    assert times.outer_step(SFRon(retain_steps=1, retain_loss="data"), 2) == 2 * 3.0 + 1.0 + 2 * 0.5


def test_the_command(tmp_path, estimate):
    tiny_pipeline().save_pretrained(tmp_path)
    code, output, _ = estimate(tmp_path, "--batch_size", 4, "--json")
    found = json.loads(output)
    count = sum(p.numel() for p in tiny_unet().parameters())
    assert code == 0 and found["parameters"] == count and list(found["modes"]) == ["full", "masked", "lora"]
    assert found["modes"]["masked"]["peak_bytes"] > found["modes"]["full"]["peak_bytes"]
    assert found["modes"]["full"]["timed_at_batch"] in (1, 4) and found["modes"]["full"]["seconds_per_outer_step"] > 0
    code, output, _ = estimate(tmp_path, "--batch_size", 4, "--no_time")
    assert code == 0 and "not timed" in output and f"{count:,} (full)" in output


@pytest.mark.parametrize(("make", "batch"), [(tiny_pipeline, 64), (tiny_dit, 16), (tiny_sd, 4), (tiny_vit, 64)])
def test_the_batch_is_that_of_the_command_for_such_a_model(tmp_path, estimate, make, batch):
    make().save_pretrained(tmp_path)
    code, output, error = estimate(tmp_path, "--no_time", "--json")
    assert code == 0 and json.loads(output)["batch_size"] == batch, error


def test_what_fits_holds_the_fisher_pass(tmp_path, estimate, monkeypatch):
    """With room for the training and not for the Fishers, a run with masks or a chosen adapter ends before a step."""
    tiny_pipeline().save_pretrained(tmp_path)
    words = (tmp_path, "--batch_size", 1, "--no_time", "--fisher_batch_size", 32)
    found = json.loads(estimate(*words, "--json")[1])["modes"]
    masked = found["masked"]
    assert masked["preparation_bytes"] > masked["peak_bytes"] > found["full"]["peak_bytes"]
    between = (masked["preparation_bytes"] + masked["peak_bytes"]) // 2
    monkeypatch.setattr("hf_unlearn.cli.estimates.free_bytes", lambda device: between)
    found = json.loads(estimate(*words, "--json")[1])["modes"]
    assert found["full"]["fits"] and not found["masked"]["fits"]
    assert found["masked"]["too_large"] == ["the Fisher pass"] and found["full"]["too_large"] == []
    row = next(line for line in estimate(*words)[1].splitlines() if line.startswith("| fits"))
    assert [cell.strip() for cell in row.split("|")[2:4]] == ["yes", "no: the Fisher pass"]
    monkeypatch.setattr("hf_unlearn.cli.estimates.free_bytes", lambda device: 1)
    found = json.loads(estimate(*words, "--json")[1])["modes"]
    assert found["masked"]["too_large"] == ["the Fisher pass", "the training"]


def test_memory_is_asked_of_the_device_at_hand(monkeypatch):
    """Of torch for an accelerator, of psutil for the host: there is no /proc on other systems."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=12))
    assert free_bytes("cpu") == 12
    for kind in ("cuda", "xpu"):
        monkeypatch.setattr(f"torch.{kind}.mem_get_info", lambda *args: (7, 9))
        assert free_bytes(kind) == 7
    monkeypatch.setattr("torch.mps.recommended_max_memory", lambda: 10)
    monkeypatch.setattr("torch.mps.driver_allocated_memory", lambda: 4)
    assert free_bytes("mps") == 6
    for kind in ("cuda", "xpu"):
        monkeypatch.setattr(f"torch.{kind}.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    assert device_at_hand() == "mps"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert device_at_hand() == "cpu"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batch_size", "0"], "batch_size must be at least 1"),
        (["--retain_loss", "none"], "invalid choice"),
        (["--slow_rate", "2", "--no_time"], "slow_rate must lie in"),
    ],
)
def test_bad_flags_are_one_line(tmp_path, estimate, words, said):
    tiny_pipeline().save_pretrained(tmp_path)
    code, _, error = estimate(tmp_path, *words)
    assert code == 2 and said in error and "Traceback" not in error


def test_no_model_is_one_line(tmp_path, estimate):
    for name in (tmp_path / "nothing", tmp_path):
        code, _, error = estimate(name)
        assert code == 2 and error.count("\n") == 1 and "error: " in error


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("mode", ["masked", "lora"])
def test_the_fisher_pass_of_a_large_model_needs_no_more_than_training(mode, batch):
    """Gradients are freed one by one, and layer scores keep the sums that training has room for."""
    with torch.device("meta"):
        unet = UNet2DModel(sample_size=8, block_out_channels=(64, 128, 256, 256), norm_num_groups=8)
        if mode == "lora":
            unet = adapted(unet, 4, 0.5)
        found = memory(unet, mode, SFRon(), batch)
    assert found.preparation <= found.peak + 2**23  # of one sample and a tiny adapter the least is looked at
    layer = max(p.numel() for p in unet.parameters())
    assert found.preparing["gradients"] == 4 * layer
    sums = found.preparing["Fishers"]
    assert sums == 8 * found.trained if mode == "masked" else 2**23 <= sums < found.lasting["weights"] / 4


def test_what_saves_memory_is_counted(tmp_path):
    """Half of the activations, those that are not computed again, states of a byte, frozen weights of two or one."""
    network, method = middling().unet.to("meta"), SFRon()
    batch = 16

    def full(**saving):
        return memory(network, "full", method, batch, saving=Saving(**saving))

    plain, again, half = full(), full(gradient_checkpointing=True), full(mixed_precision="bf16")
    assert again.passes["activations"] < 0.7 * plain.passes["activations"]
    assert 0.4 * plain.passes["activations"] < half.passes["activations"] < 0.95 * plain.passes["activations"]
    byte = full(use_8bit_adam=True)
    for name in ("retain optimizer", "forget optimizer"):  # two codes and their share of a block's scales
        assert byte.lasting[name] == int((2 + 8 / 256) * plain.trained) < plain.lasting[name] / 3
    lean = adapted(network, 2)
    sizes = {
        name: memory(lean, "lora", method, batch, saving=Saving(base_precision=name)) for name in ("fp32", "bf16")
    }
    frozen = sum(p.numel() for p in lean.parameters() if not p.requires_grad)
    assert sizes["fp32"].lasting["weights"] - sizes["bf16"].lasting["weights"] == 2 * frozen
    # Ranks by saliency are chosen on the weights in full.
    assert sizes["bf16"].preparing["frozen weights in full"] == 2 * frozen


def test_checkpointed_activations_are_what_a_run_takes(tmp_path):
    """Within 15 % of the measured peak, as without."""
    outlined, pipeline, method = middling().unet.to("meta"), middling(), SFRon(use_mask=False)
    expected = memory(outlined, "full", method, 16, saving=Saving(gradient_checkpointing=True))
    images = ArrayDataset(torch.rand(40, 1, 16, 16) * 2 - 1, torch.arange(40) % 4)
    values = config(
        tmp_path, per_device_train_batch_size=16, max_steps=2, guard_steps=0, activation_checkpointing=True
    )
    trainer = UnlearnTrainer(NoisePrediction(pipeline), values, method, *split_by_label(images, 1))
    measured = measured_peak(trainer, expected.lasting["weights"])
    assert abs(expected.peak / measured - 1) <= TOLERANCE, (expected.peak, measured)


def test_the_command_that_fits_is_printed(tmp_path, estimate):
    """The one that changes least: as it is, with activations computed again, with an adapter; or that none does."""
    tiny_sd().save_pretrained(tmp_path)
    words = (tmp_path, "--no_time", "--batch_size", 8)
    found = json.loads(estimate(*words, "--memory_gb", 4, "--json")[1])
    assert found["fitting"]["command"].endswith("--train_batch_size 8") and "t2i" in found["fitting"]["command"]
    small = found["modes"]["masked"]["peak_bytes"] / 2**30
    leaner = json.loads(estimate(*words, "--memory_gb", small / 2, "--json")[1])["fitting"]
    assert "--use_lora" in leaner["command"] and leaner["peak_bytes"] <= small / 2 * 2**30
    assert "Nothing known here fits" in estimate(*words, "--memory_gb", 1e-5)[1]
    part = json.loads(estimate(*words, "--train_method", "xattn", "--json")[1])["modes"]["full"]
    assert part["trained"] < found["modes"]["full"]["trained"] / 5
