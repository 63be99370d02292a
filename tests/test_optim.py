import copy

import pytest
import torch
from torch import nn

from hf_unlearn.training.optim import FastSlow


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def fill(network: nn.Module, seed: int) -> None:
    """Gradients of a step, from a seed."""
    generator = torch.Generator().manual_seed(seed)
    for p in network.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


def weights(network: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in network.parameters()]


def equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_rate_one_keeps_no_slow_copy_and_is_the_bare_optimizer():
    ours, bare = model(), model()
    wrapped = FastSlow(torch.optim.AdamW(ours.parameters(), lr=0.1))
    plain = torch.optim.AdamW(bare.parameters(), lr=0.1)
    for step in range(5):
        fill(ours, step)
        fill(bare, step)
        wrapped.begin()
        wrapped.step()
        wrapped.merge()
        plain.step()
    assert equal(weights(ours), weights(bare)) and wrapped._slow is None


def test_lookahead_is_the_stated_merge():
    network = model()
    optimizer = FastSlow(torch.optim.SGD(network.parameters(), lr=0.1), rate=0.3)
    for outer in range(3):
        start = weights(network)
        optimizer.begin()
        for inner in range(2):
            fill(network, 10 * outer + inner)
            optimizer.step()
        fast = weights(network)
        optimizer.merge()
        expected = [s + 0.3 * (f - s) for s, f in zip(start, fast)]
        assert all(torch.allclose(w, e, atol=1e-7) for w, e in zip(weights(network), expected))


def test_ema_follows_and_is_swapped_in_and_out():
    network = model()
    optimizer = FastSlow(torch.optim.SGD(network.parameters(), lr=0.1), rate=0.3, form="ema")
    average = weights(network)
    for step in range(4):
        optimizer.begin()
        fill(network, step)
        optimizer.step()
        optimizer.merge()
        average = [a + 0.3 * (w - a) for a, w in zip(average, weights(network))]
    live = weights(network)
    with optimizer.averaged():
        assert all(torch.allclose(w, a, atol=1e-6) for w, a in zip(weights(network), average))
    assert equal(weights(network), live)
    optimizer.finish()
    assert all(torch.allclose(w, a, atol=1e-6) for w, a in zip(weights(network), average))


def test_a_second_run_starts_a_new_average():
    network = model()
    optimizer = FastSlow(torch.optim.SGD(network.parameters(), lr=0.1), rate=0.3, form="ema")
    for seed in range(2):
        network.load_state_dict(model().state_dict())  # as an early stop that goes back to other weights does
        start = weights(network)
        optimizer.begin()
        fill(network, seed)
        optimizer.step()
        fast = weights(network)
        optimizer.merge()
        optimizer.finish()
        expected = [s + 0.3 * (f - s) for s, f in zip(start, fast)]
        assert all(torch.allclose(w, e, atol=1e-7) for w, e in zip(weights(network), expected))


def test_slow_buffers_are_merged_too():
    """BatchNorm statistics are buffers: released code never merges them."""
    norm = nn.BatchNorm1d(3)
    optimizer = FastSlow(torch.optim.SGD(norm.parameters(), lr=0.1), rate=0.5, buffers=[norm.running_mean])
    optimizer.begin()
    norm.running_mean.fill_(4.0)
    optimizer.merge()
    assert norm.running_mean.tolist() == [2.0, 2.0, 2.0]


def masks_of(network: nn.Module) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(p.shape, generator=generator) < 0.5 for p in network.parameters()]


def forget_phase(separate: bool, hard: bool, verify: bool = True, retain_steps: int = 5) -> tuple[float, float]:
    """(largest drift outside the mask, largest inside) of one forget step after retain steps, AdamW with decay."""
    network = model()
    base = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1)
    forget = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1) if separate else None
    optimizer, masks = FastSlow(base, forget), masks_of(network)
    for step in range(retain_steps):
        fill(network, step)
        optimizer.step()
    before = weights(network)
    fill(network, 99)
    for p, m in zip(network.parameters(), masks):
        p.grad.mul_(m)
    with optimizer.forget_phase(masks, hard=hard, verify=verify):
        optimizer.step()
    moved = [(w - b).abs() for w, b in zip(weights(network), before)]
    outside = max(d.masked_fill(m, 0).max().item() for d, m in zip(moved, masks))
    inside = max(d.masked_fill(~m, 0).max().item() for d, m in zip(moved, masks))
    assert optimizer.mask_drift == (outside if verify else 0)
    return outside, inside


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("separate", [False, True])
def test_masked_out_weights_do_not_move_in_the_forget_phase(separate, verify):
    outside, inside = forget_phase(separate, hard=True, verify=verify)
    assert outside == 0 and inside > 1e-3


@pytest.mark.parametrize("separate", [False, True])
def test_a_gradient_mask_is_not_a_weight_mask(separate):
    """The historic fault: momentum and weight decay move masked-out weights although their gradient is 0."""
    assert forget_phase(separate, hard=False)[0] > 1e-4


def test_an_optimizer_of_its_own_without_decay_needs_no_restoring():
    """What lets the hard mask spare its copy: masked gradients only, and still no drift."""
    network = model()
    forget = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.0)
    optimizer, masks = FastSlow(torch.optim.AdamW(network.parameters(), lr=0.1), forget), masks_of(network)
    assert optimizer._outside(masks, forget, hard=True, verify=False) is None
    for step in range(4):
        before = weights(network)
        fill(network, step)
        for p, m in zip(network.parameters(), masks):
            p.grad.mul_(m)
        with optimizer.forget_phase(masks):
            optimizer.step()
        assert all(torch.equal(w[~m], b[~m]) for w, b, m in zip(weights(network), before, masks))


def test_forget_rate_follows_the_schedule_and_the_scale():
    network = model()
    base, forget = torch.optim.SGD(network.parameters(), lr=0.1), torch.optim.SGD(network.parameters(), lr=1.0)
    optimizer = FastSlow(base, forget)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    optimizer.step()
    schedule.step()
    before = weights(network)
    fill(network, 0)
    with optimizer.forget_phase(None, scale=0.5):
        optimizer.step()
    expected = [b - 0.5 * 0.5 * p.grad for b, p in zip(before, network.parameters())]
    assert all(torch.allclose(w, e) for w, e in zip(weights(network), expected))
    assert (base.param_groups[0]["lr"], forget.param_groups[0]["lr"]) == (0.05, 1.0)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("form", ["lookahead", "ema"])
def test_state_dict_resumes_exactly(separate, form):
    def build(network):
        base = torch.optim.AdamW(network.parameters(), lr=0.1)
        forget = torch.optim.AdamW(network.parameters(), lr=0.05) if separate else None
        return FastSlow(base, forget, rate=0.5, form=form)

    def steps(network, optimizer, numbers):
        for n in numbers:
            optimizer.begin()
            fill(network, n)
            with optimizer.forget_phase(None):
                optimizer.step()
            fill(network, 100 + n)
            optimizer.step()
            optimizer.merge()

    straight = model()
    whole = build(straight)
    steps(straight, whole, range(6))
    network = model()
    first = build(network)
    steps(network, first, range(3))
    again = copy.deepcopy(network)
    second = build(again)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.param_groups is second.base.param_groups
    steps(again, second, range(3, 6))
    assert equal(weights(again), weights(straight))
    with whole.averaged(), second.averaged():
        assert equal(weights(again), weights(straight))


def test_bad_values_say_what_to_set():
    parameters = list(model().parameters())
    with pytest.raises(ValueError, match="'lookahead' or 'ema'"):
        FastSlow(torch.optim.SGD(parameters, lr=0.1), form="polyak")
    with pytest.raises(RuntimeError, match="begin"):
        FastSlow(torch.optim.SGD(parameters, lr=0.1), rate=0.5).merge()
    average = FastSlow(torch.optim.SGD(parameters, lr=0.1), form="ema")
    average.begin()
    with pytest.raises(ValueError, match="slow_form='ema'"):
        FastSlow(torch.optim.SGD(parameters, lr=0.1)).load_state_dict(average.state_dict())
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        FastSlow(torch.optim.SGD(parameters, lr=0.1), rate=0.0)
    separate = FastSlow(torch.optim.SGD(parameters, lr=0.1), torch.optim.SGD(parameters, lr=0.1))
    with pytest.raises(ValueError, match="forget_optim"):
        FastSlow(torch.optim.SGD(parameters, lr=0.1)).load_state_dict(separate.state_dict())
