"""AdamW that keeps less between two steps: what it must equal, and what it takes."""

import copy
import subprocess
import sys

import pytest
import torch
from conftest import config, environment, random_images, same, tiny_pipeline, tiny_vit, unlearned, weights
from safetensors.torch import load_file

from hf_unlearn import ClassConditionalDDPMPipeline, FineTune, SFRon, UnlearnTrainer, split_by_label
from hf_unlearn.saliency.masks import Masks
from hf_unlearn.training.compact import CompactAdamW
from hf_unlearn.training.rounding import Code, dynamic_code, stochastic_bf16

FOUND = dict(learning_rate=None)  # the strength is found
AT_RATE = dict(learning_rate=1e-3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- rounding --------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [1.0 + 2**-9, -3.14159, 1e-20, 6.1e4])
def test_the_expectation_of_a_rounded_number_is_the_number(value):
    """Only the two neighbours are met, and their mean is within four standard errors."""
    count = 40_000
    drawn = stochastic_bf16(torch.full((count,), value), generator()).double()
    low, high = drawn.min(), drawn.max()
    exact = torch.tensor(value).double()  # as float32 holds it
    assert set(drawn.tolist()) == {low.item(), high.item()} and low < exact < high
    assert high - low <= 2**-7 * abs(exact)
    share = (exact - low) / (high - low)
    error = (high - low) * (share * (1 - share) / count).sqrt()
    assert (drawn.mean() - exact).abs() <= 4 * error


def test_what_bfloat16_holds_is_not_rounded():
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    finite = every[every.isfinite()]
    assert torch.equal(stochastic_bf16(finite.float(), generator()), finite)
    rest = stochastic_bf16(torch.tensor([torch.inf, -torch.inf, torch.nan]), generator())
    assert rest[:2].tolist() == [torch.inf, -torch.inf] and rest[2].isnan()


def test_steps_that_nearest_rounding_loses_add_up():
    """2000 steps of 1e-4 from 1, whose neighbours are 0.0078 apart: 1.2 is reached, and 1 never left by the other."""
    start = torch.ones(512, dtype=torch.bfloat16)
    nearest, stochastic, random = start.clone(), start.clone(), generator()
    for _ in range(2000):
        nearest = (nearest.float() + 1e-4).to(torch.bfloat16)
        stochastic = stochastic_bf16(stochastic.float() + 1e-4, random)
    assert torch.equal(nearest, start)
    assert (stochastic.float().mean() - 1.2).abs() <= 4 * (0.2 * 2**-7 / 512) ** 0.5


def test_codes_are_the_nearest_numbers_of_dynamic_quantisation():
    """256 of them in order; what is looked up is the nearest, up to the bits that it is looked up by."""
    for signed in (True, False):
        code = dynamic_code(signed)
        assert len(code) == 256 and (code.diff() > 0).all() and code[-1] == 1 and bool((code == 0).any()) == signed
        value = torch.randn(1000, generator=generator()) if signed else torch.randn(1000, generator=generator()) ** 2
        kept = Code(signed, "cpu")
        codes, scales = kept.quantised(value)
        assert codes.dtype == torch.uint8 and scales.shape == (4,)
        found, each = kept.dequantised(codes, scales), scales.repeat_interleave(256)[:1000]
        by_hand = code[(value[:, None] / each[:, None] - code).abs().argmin(1)] * each
        distance, least = (found - value).abs(), (by_hand - value).abs()
        assert (distance <= least * 1.001 + value.abs() * 2**-10).all() and (found == by_hand).float().mean() > 0.98
        assert (found - value).norm() <= 0.02 * value.norm()
        at_most = value.abs() == each
        assert at_most.sum() == 4 and torch.allclose(found[at_most], value[at_most], rtol=0.01)
        assert torch.equal(kept.dequantised(*kept.quantised(torch.zeros(300))), torch.zeros(300))


# ---- the optimizer ---------------------------------------------------------------------------
def network(dtype=torch.float32) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(70, 130), torch.nn.Conv1d(130, 7, 3), torch.nn.LayerNorm(9)).to(dtype)


def filled(module, step: int, masks=None) -> None:
    random = generator(step)
    for i, p in enumerate(module.parameters()):
        p.grad = torch.randn(p.shape, generator=random).to(p.dtype)
        if masks is not None:
            p.grad.mul_(masks[i])


@pytest.mark.parametrize("fused", [True, None])
@pytest.mark.parametrize("eight_bit", [False, True])
def test_masked_moments_have_the_bits_of_dense_ones(fused, eight_bit):
    """Of the moments that are kept; 8-bit blocks of packed moments hold others than those of dense ones."""
    ours, theirs = network(), network()
    masks = [torch.rand(p.shape, generator=generator(9)) < 0.4 for p in ours.parameters()]
    packed = CompactAdamW(ours.parameters(), eight_bit, masked=True, lr=1e-2, weight_decay=0.0, fused=fused)
    packed.bind(masks)
    dense = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.0, fused=fused)
    for step in range(5):
        for module, optimizer in ((ours, packed), (theirs, dense)):
            filled(module, step, masks)
            optimizer.step()
    states = [packed.state[p] for p in ours.parameters()]
    assert [s["exp_avg"].numel() for s in states] == [int(m.sum()) for m in masks]
    for p, other, mask in zip(ours.parameters(), theirs.parameters(), masks):
        if not eight_bit:
            assert torch.equal(p, other)
            for name in ("exp_avg", "exp_avg_sq"):
                assert torch.equal(packed.unpacked(p, name), dense.state[other][name])
        assert torch.equal(p[~mask], other[~mask])


def test_eight_bits_step_nearly_as_thirty_two():
    ours, theirs, start = network(), network(), network()
    small = CompactAdamW(ours.parameters(), eight_bit=True, lr=1e-2)
    full = torch.optim.AdamW(theirs.parameters(), lr=1e-2)
    for step in range(20):
        for module, optimizer in ((ours, small), (theirs, full)):
            filled(module, step)
            optimizer.step()
    kinds = [small.state[p]["exp_avg"].dtype for p in ours.parameters()]
    assert kinds == [torch.uint8 if p.numel() >= 4096 else torch.float32 for p in ours.parameters()]
    moved = ours[0].weight - start[0].weight, theirs[0].weight - start[0].weight
    assert (moved[0] - moved[1]).norm() <= 0.1 * moved[1].norm()
    kept = sum(v.numel() * v.element_size() for v in small.state[ours[0].weight].values())
    assert kept <= (2 + 8 / 256) * ours[0].weight.numel() + 16


@pytest.mark.parametrize("options", [{"eight_bit": True}, {"masked": True}, {}, {"eight_bit": True, "masked": True}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resumed_steps_equal_straight_ones(options, dtype):
    masks = [torch.rand(p.shape, generator=generator(9)) < 0.4 for p in network().parameters()]

    def made(module):
        optimizer = CompactAdamW(module.parameters(), seed=5, lr=1e-3, weight_decay=0.0, **options)
        optimizer.bind(masks)
        return optimizer

    def steps(module, optimizer, numbers):
        for step in numbers:
            filled(module, step, masks)
            optimizer.step()

    straight = network(dtype)
    whole = made(straight)
    steps(straight, whole, range(3))
    again, kept = copy.deepcopy(straight), copy.deepcopy(whole.state_dict())
    resumed = made(again)
    resumed.load_state_dict(kept)
    for module, optimizer in ((straight, whole), (again, resumed)):
        steps(module, optimizer, range(3, 6))
    assert all(torch.equal(p, q) for p, q in zip(straight.parameters(), again.parameters()))
    other = made(network(dtype))
    other.seed = 6
    steps(module := network(dtype), made(module), range(6))
    assert all(torch.equal(p, q) for p, q in zip(straight.parameters(), module.parameters()))


def test_a_checkpoint_of_other_moments_is_refused():
    module = network()
    optimizer = CompactAdamW(module.parameters(), eight_bit=True)
    filled(module, 0)
    optimizer.step()
    other = CompactAdamW(network().parameters())
    with pytest.raises(
        ValueError, match="keeps the optimizer's moments otherwise: resume with the same masked_moments"
    ):
        other.load_state_dict(optimizer.state_dict())


# ---- runs ------------------------------------------------------------------------------------
@pytest.fixture
def small_enough(monkeypatch):
    """Tiny models have moments in 8 bits too."""
    monkeypatch.setattr("hf_unlearn.training.compact.SMALLEST", 64)


def half_mask(pipeline) -> Masks:
    named = pipeline.unet.named_parameters()
    return Masks({n: torch.rand(p.shape, generator=generator(len(n))) < 0.5 for n, p in named})


def ran(folder, resume=None, method=None, pipeline=None, **values):
    pipeline = pipeline or tiny_pipeline()
    options = dict(max_steps=4, save_strategy="steps", save_steps=2, verify_mask_steps=1, logging_steps=2, **values)
    data = split_by_label(random_images(), 1)
    trainer = UnlearnTrainer(pipeline, config(folder, **options), method or SFRon(), *data, masks=half_mask(pipeline))
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("rate", [FOUND, AT_RATE], ids=["found", "at_rate"])
def test_a_run_with_masked_moments_ends_as_with_dense_ones_bit_for_bit(tmp_path, rate):
    dense, masked = ran(tmp_path / "a", **rate), ran(tmp_path / "b", masked_moments=True, **rate)
    assert same(weights(dense), weights(masked)) and masked.verify_mask() == 0
    counts = [sum(s["exp_avg"].numel() for s in t.step.weights.forget.state.values()) for t in (dense, masked)]
    assert 0.45 * counts[0] <= counts[1] <= 0.55 * counts[0]
    logged = [
        [v for k, v in row.items() if "runtime" not in k and "second" not in k]
        for t in (dense, masked)
        for row in t.state.log_history
    ]
    assert logged[: len(logged) // 2] == logged[len(logged) // 2 :]  # what the moments say of each other too
    assert any("forget_conflict" in row for row in dense.state.log_history) == (rate is FOUND)


OPTIONS = {
    "masked": dict(masked_moments=True),
    "eight": dict(use_8bit_adam=True),
    "bf16": dict(bf16_weights=True),
    "all": dict(masked_moments=True, use_8bit_adam=True, bf16_weights=True),
    "original": dict(original_precision="bf16"),
}


@pytest.mark.usefixtures("small_enough")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_resumed_run_equals_a_straight_one(tmp_path, options):
    rate = AT_RATE if options is OPTIONS["eight"] else FOUND
    straight = ran(tmp_path / "a", **options, **rate)
    resumed = ran(tmp_path / "b", str(tmp_path / "a/checkpoint-2"), **options, **rate)
    assert same(weights(straight), weights(resumed))
    start = tiny_pipeline().unet.state_dict()
    assert not any(
        torch.equal(v.float(), start[n].to(v.dtype).float()) for n, v in weights(straight).items() if "conv_in.w" in n
    )
    assert straight.verify_mask() == 0  # nothing outside the mask has moved


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_a_quantised_original_is_matched_nearly_as_the_one_in_full(tmp_path, precision):
    pytest.importorskip("bitsandbytes", reason="pip install 'hf-unlearn[quantised]'")
    data, found = split_by_label(random_images(), 1), []
    for kept in ("fp32", precision):
        model = tiny_vit()
        options = dict(max_steps=4, learning_rate=1e-3, original_precision=kept)
        trainer = UnlearnTrainer(model, config(tmp_path / kept, **options), SFRon(use_mask=False), *data)
        trainer.train()
        start = tiny_vit().state_dict()
        found.append(torch.cat([(v - start[n]).flatten() for n, v in weights(trainer).items()]))
        trainer.save_model()
    kinds = {p.dtype for p in trainer.reference.original.parameters()}
    assert kinds & {torch.int8, torch.uint8} and (found[0] - found[1]).norm() <= 0.5 * found[0].norm()


@pytest.mark.usefixtures("small_enough")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_run_ends_near_that_with_everything_in_full(tmp_path, options):
    full, small = ran(tmp_path / "a", **FOUND), ran(tmp_path / "b", **options, **FOUND)
    start = tiny_pipeline().unet.state_dict()
    moved = [torch.cat([(v.float() - start[n]).flatten() for n, v in weights(t).items()]) for t in (full, small)]
    rounded = torch.cat([(v.bfloat16().float() - v).flatten() for v in start.values()])
    allowed = 0.5 * moved[0].norm() + (2 * rounded.norm() if "bf16_weights" in options else 0)
    assert moved[0].norm() > 0 and (moved[0] - moved[1]).norm() <= allowed


def two_steps(folder, **given) -> tuple[int, dict[str, torch.Tensor]]:
    """(number of processes, weights) of a run whose global batch is of four samples."""
    torch.manual_seed(0)
    options = dict(max_steps=2, adam_epsilon=1e-3, **OPTIONS["all"], **given)
    args = config(folder, **options)
    args.per_device_train_batch_size = 4 // args.world_size
    pipeline = tiny_pipeline()
    data = split_by_label(random_images(), 1)
    trainer = UnlearnTrainer(pipeline, args, SFRon(adversary=False), *data, masks=half_mask(pipeline))
    trainer.train()
    trainer.save_model()
    return args.world_size, weights(trainer)


WORKER = """
import os
import sys
from safetensors.torch import save_file
from test_compact import two_steps
count, found = two_steps(sys.argv[1] + "/run")
save_file({n: v.contiguous() for n, v in found.items()}, f"{sys.argv[1]}/{os.environ['RANK']}.safetensors")
"""


def test_two_processes_round_alike_and_end_near_one(tmp_path):
    """Bit for bit alike; near one process, whose gradients are not rounded to bfloat16 before they are averaged."""
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(tmp_path / "worker.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(ACCELERATE_USE_CPU="true"))
    assert done.returncode == 0, done.stderr
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    assert same(first, second)
    count, one = two_steps(tmp_path / "one")
    start = tiny_pipeline().unet.state_dict()
    moved = torch.cat([(v.float() - start[n].bfloat16().float()).flatten() for n, v in one.items()])
    apart = torch.cat([(first[n].float() - v.float()).flatten() for n, v in one.items()])
    assert count == 1 and moved.norm() > 0 and apart.norm() <= 0.2 * moved.norm()


def test_bf16_weights_are_written_as_they_came(tmp_path):
    trainer = ran(tmp_path, bf16_weights=True)
    network = trainer.objective.network
    assert (
        {p.dtype for p in network.parameters()}
        == {torch.bfloat16}
        == {p.dtype for p in trainer.reference.original.parameters()}
    )
    trainer.save_model()
    again = ClassConditionalDDPMPipeline.from_pretrained(tmp_path).unet.state_dict()
    assert all(v.dtype == torch.float32 and torch.equal(v, weights(trainer)[n].float()) for n, v in again.items())


def test_what_does_not_work_is_one_line(tmp_path):
    data = split_by_label(random_images(), 1)
    for options, method, said in (
        (dict(masked_moments=True), SFRon(use_mask=False), "there is none: leave it out"),
        (dict(masked_moments=True), FineTune(), "there is none: leave it out"),
        (dict(masked_moments=True), SFRon(forget_optim="shared"), "set forget_optim='separate'"),
        (dict(bf16_weights=True), SFRon(slow_rate=0.5), "set slow_rate=1, or leave bf16_weights out"),
        (dict(original_precision="bf16"), SFRon(retain_loss="data"), "none is kept: leave it out"),
        (dict(original_precision="int4"), SFRon(), "must be one of fp32, bf16"),
        (dict(bf16_weights=True, optim="sgd"), SFRon(), "leave optim=sgd out"),
        (dict(use_8bit_adam=True, optim="adafactor"), SFRon(), "leave optim=adafactor out"),
    ):
        with pytest.raises(ValueError, match=said):
            UnlearnTrainer(tiny_pipeline(), config(tmp_path, **options), method, *data)


def test_the_default_is_torchs_own_optimizer(tmp_path):
    trainer = unlearned(tiny_pipeline(), tmp_path, SFRon())
    assert {type(part) for _, part in trainer.step.weights.parts()} == {torch.optim.AdamW}
