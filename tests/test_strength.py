"""A strength that is found: its controller and its step by hand."""

import json
import math
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hf_unlearn import SFRon
from hf_unlearn.training.directions import conflict, directions, step_along
from hf_unlearn.training.optim import FastSlow
from hf_unlearn.training.strength import MEMORY, SMOOTHING, Plan, Strength, strengths_of

T = 30  # outer steps, of which the plan takes 10


def test_the_first_step_takes_off_the_share_that_the_plan_has_for_it():
    """κ <g, d> = c (m - m_0 floor / 2), c = 1 - floor^(1/10): the gain is 1, as the level is 1 when the plan is."""
    strength = Strength()
    strength.begin(0, T)
    strength.measure(3.0, 3.0, 1.0)
    pace = 1 - 0.1 ** (1 / 10)
    assert strength.gain == 1.0
    assert strength.length(0.5, 1.0, 1e9) == pytest.approx(pace * (3 - 0.15) / 0.5)
    assert strength.rate == pytest.approx(pace * (3 - 0.15) / 0.5) and strength.logged["forget_distance"] == 1.0


def test_equal_steps_give_the_retain_steps_the_forget_steps_root_mean_square():
    """Adam makes a step of about the rate in every one of 400 weights; ‖κ d‖ over its root is that rate."""
    found = []
    for plan in (Plan(), Plan(equal_steps=True)):
        strength = Strength(plan)
        strength.begin(0, T)
        strength.measure(3.0, 3.0, 1.0)
        kappa = strength.length(0.5, 5.0, 1e9, 400)
        found.append(strength.rate / kappa)
    assert found == pytest.approx([1.0, 5.0 / 20])


def test_steps_as_planned_arrive_at_the_floor_after_a_third():
    """A loss that falls by exactly what a step wants to take: m_{t+1} = m_t - want, and the gain moves little."""
    strength, m = Strength(), 2.0
    for t in range(10):
        strength.begin(t, T)
        strength.measure(m, 2.0, 1.0)
        m -= strength.length(1.0, 1.0, 1e9)
    assert 0.1 <= m / 2 <= 0.15 and 1 <= strength.gain <= 1.25


def test_the_gain_rises_where_the_loss_is_behind_and_falls_where_it_is_ahead():
    for level, number, gain in ((1.0, 10, 10**0.2), (0.05, 0, 0.05**0.2), (0.001, 0, 0.01**0.2)):
        strength = Strength()
        strength.begin(number, T)
        strength.measure(2.0, 2.0, 1.0)
        strength.gain = 1.0
        strength.measure(2.0 * level, 2.0, 1.0)
        assert strength.gain == pytest.approx(gain)
    for _ in range(40):
        strength.measure(0.0, 2.0, 1.0)
    assert strength.gain == 0.05 and strength.length(1.0, 1.0, 1e9) == 0
    strength.begin(10, T)
    for _ in range(40):
        strength.measure(2.0, 2.0, 1.0)
    assert strength.gain == Plan().gain[1]


def test_the_gain_falls_where_the_retained_side_drifts_and_where_the_loss_grew():
    strength = Strength()
    strength.begin(10, T)
    strength.measure(2.0, 2.0, 0.5)
    before = strength.gain
    strength.measure_retain(1.0)  # two of the units of 0.5, a fifth of which counts
    assert strength.drift == pytest.approx(2 / SMOOTHING)
    strength.measure(2.0, 2.0, 0.5)
    assert strength.gain == pytest.approx(before * (0.25 / 0.4) ** 0.2)
    strength = Strength()
    strength.begin(10, T)
    strength.measure(2.0, 2.0, 1.0)
    before = strength.gain
    strength.measure(6.0, 2.0, 1.0)
    assert strength.gain == pytest.approx(before * (1 / 3) ** 0.2)


def begun(want: float = 1.0) -> Strength:
    """Where the next step is to take off `want`."""
    strength = Strength()
    strength.begin(0, T)
    strength._want = want
    return strength


def test_a_step_is_at_most_twice_the_mean_and_two_hundredths_of_the_weights():
    strength = begun()
    assert strength.length(10.0, 1.0, 1e9) == pytest.approx(0.1)
    assert strength.length(0.001, 1.0, 1e9) == pytest.approx(0.2)  # not 1000
    assert strength.length(0.001, 1.0, 1e9) == pytest.approx(2 * math.sqrt(0.1 * 0.2))
    assert begun().length(1e-9, 4.0, 50.0) == pytest.approx(0.02 * 50 / 4)


def test_where_the_direction_does_not_lead_down_the_step_is_the_mean_one():
    strength = begun()
    assert strength.length(-1.0, 1.0, 1e9) == 0.0 and strength.lengths == 0  # nothing to go by yet
    for slope in (10.0, 5.0):
        strength.length(slope, 1.0, 1e9)
    assert strength.length(-1.0, 1.0, 1e9) == pytest.approx(math.sqrt(0.1 * 0.2))
    assert strength.length(0.0, 1.0, 1e9) == pytest.approx(math.sqrt(0.1 * 0.2))


def test_the_mean_forgets_what_is_older_than_its_memory():
    strength = begun()
    for _ in range(3 * MEMORY):
        strength.length(1.0, 1.0, 1e9)
    strength.length(2.0, 1.0, 1e9)
    assert strength.log_mean == pytest.approx(math.log(0.5) / MEMORY)


def test_the_end_begins_at_the_floor_and_not_before_enough_was_measured():
    strength = Strength()
    for number in range(SMOOTHING + 1):
        strength.begin(number, T)
        assert strength.ending == (SMOOTHING if number == SMOOTHING else None)
        strength.measure(0.05, 1.0, 1.0)
    assert strength.reached and strength.last(T) == 2 * SMOOTHING
    assert strength.last(SMOOTHING + 2) == SMOOTHING + 2


def test_the_end_begins_at_the_hold_where_the_floor_is_not_reached():
    strength = Strength()
    for number in range(T):
        strength.begin(number, T)
        strength.measure(0.5, 1.0, 1.0)
    assert (strength.ending, strength.reached, strength.last(T)) == (20, False, T)


def levels(values, total=T, most=None, drift=0.0):
    """A controller after one outer step at each of these levels."""
    strength = Strength()
    for number, value in enumerate(values):
        strength.begin(number, total, most=most)
        strength.drift = drift
        strength.measure(value, 1.0, 1.0)
        strength.level = value
    return strength


def test_an_extended_run_goes_on_while_it_comes_closer():
    """Planned for 30 steps it looks at 20, 40, 60, ...: a stretch of 20 steps must leave 95 % at most."""
    falling = [0.95 ** (n / 19) for n in range(200)]
    stalled = falling[:45] + [falling[44]] * 40
    assert levels(falling[:80], most=120).ending is None
    found = levels(stalled[:61], most=120)
    assert (found.ending, found.reached, found.last(T, 120)) == (60, False, 90)
    assert levels(falling[:111], most=120).ending == 80
    assert levels(falling[:111], most=120).last(T, 120) == 120
    held = levels([1.0] * 21, most=120, drift=1.0)
    assert held.gain < 1 and held.ending == 20 and held.last(T, 120) == T


def test_a_stretch_in_which_the_gain_rises_to_its_most_is_no_reason_to_end():
    """A small Swin stood still until then, and forgot after."""
    assert levels([1.0] * 20, most=120).gain == Plan().gain[1]
    assert levels([1.0] * 21, most=120).ending is None
    stalled = levels([1.0] * 41, most=120)
    assert stalled.ending == 40 and stalled.last(T, 120) == 60


def test_batches_differ_so_a_little_farther_is_not_too_long():
    """Of a classifier a loss up to a quarter over the original's lets the gain rise; a generator's is as it was."""
    for above, rises in ((1.0, False), (1.25, True)):
        control = Strength(Plan(above=above))
        for number in range(10):
            control.begin(number, T)
            control.measure(1.2 if number else 1.0, 1.0, 1.0)
        assert (control.gain > 1) == rises
    assert strengths_of(SFRon(forget_loss="unseen"))["forget"].plan.above == 1.25
    assert strengths_of(SFRon(forget_loss="match"))["forget"].plan.above == 1.0


def test_an_extended_run_that_has_forgotten_ends_as_another_and_later_fades_for_half_its_steps():
    early = levels([0.05] * 8, most=120)
    assert early.ending == SMOOTHING and early.last(T, 120) == early.last(T) == 2 * SMOOTHING
    late = levels([0.9 ** (n / 9) for n in range(48)] + [0.05] * 2, most=120)
    assert (late.ending, late.reached, late.last(T, 120)) == (49, True, 74)


def test_a_run_that_may_be_extended_is_the_planned_one_as_long_as_that_is_in_time():
    for values in ([0.05] * T, [0.8**n for n in range(T)]):
        plain, longer = levels(values), levels(values, most=120)
        assert plain.state_dict() == longer.state_dict() and plain.last(T) == longer.last(T, 120)


def test_the_steps_fade_along_a_cosine_from_1_to_0():
    found = []
    for number in range(20, T + 1):
        strength = begun()
        strength.ending = 20
        strength.begin(number, T)
        found.append(strength.length(1.0, 1.0, 1e9))
        assert strength.rate == found[-1] and strength.log_mean == 0  # the mean is of steps that do not fade
    assert found == pytest.approx([(1 + math.cos(math.pi * k / 10)) / 2 for k in range(11)])
    assert found[0] == 1 and found[-1] == 0


def test_the_state_goes_through_json_and_on_to_the_same_numbers():
    def drive(strength, numbers):
        lengths = []
        for t in numbers:
            strength.begin(t, T)
            strength.measure(2 * 0.8**t, 2.0, 0.5)
            lengths.append(strength.length(1 + 0.1 * t, 1.0, 3.0))
            strength.measure_retain(0.01 * t)
        return lengths

    whole, first, second = Strength(Plan()), Strength(), Strength()
    drive(first, range(12))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    wanted = drive(whole, range(25))
    assert wanted[12:] == drive(second, range(12, 25)) and whole.ending is not None and whole.reached
    assert whole.state_dict() == second.state_dict() and whole.logged == second.logged


# ---- the direction -----------------------------------------------------------------------------------
def of_gradients() -> tuple[list[torch.nn.Parameter], torch.optim.AdamW]:
    """Weights with gradients, and AdamW at a learning rate of 0."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.nn.Parameter(torch.randn(40, 50, generator=generator)) for _ in range(6)]
    for p in made:
        p.grad = torch.randn(40, 50, generator=generator)
    return made, torch.optim.AdamW(made, lr=0.0, weight_decay=0.1)


def test_the_conflict_is_read_off_the_moments():
    """By hand: -cos(m_f, m_r), and the sine of the angle between m_f and Adam's direction."""
    ours, forget = of_gradients()
    retain = torch.optim.AdamW(ours, lr=0.0)
    assert conflict(forget, retain) == {} and conflict(None, retain) == {}
    forget.step()
    assert conflict(forget, retain) == {}
    for p in ours:
        p.grad = torch.randn(40, 50, generator=torch.Generator().manual_seed(7)) - 0.5 * p.grad
    retain.step()
    f, r = (torch.cat([o.state[p]["exp_avg"].flatten() for p in ours]).double() for o in (forget, retain))
    d = f / (torch.cat([forget.state[p]["exp_avg_sq"].flatten() for p in ours]).double().sqrt() + 1e-8)
    along = (f @ d / f.norm() / d.norm()).item()
    found = conflict(forget, retain)
    assert found["forget_conflict"] == pytest.approx(-(f @ r / f.norm() / r.norm()).item(), rel=1e-4) and (
        found["forget_conflict"] > 0
    )
    assert found["forget_conflict_limit"] == pytest.approx(math.sqrt(1 - along**2), rel=1e-4)


@pytest.mark.parametrize("rate", [1e-3, 0.5])
def test_a_step_of_a_length_is_adams_step_at_that_rate(rate):
    """For three steps; what it is told of slope and lengths is that of the step that it takes."""
    ours, optimizer = of_gradients()
    theirs, _ = of_gradients()
    adam, told = torch.optim.AdamW(theirs, lr=rate, weight_decay=0.0), []
    for _ in range(3):
        before = [p.detach().clone() for p in ours]
        for p, q in zip(ours, theirs):
            p.grad = q.grad.clone()
        adam.step()
        optimizer.step()
        assert all(torch.equal(b, p) for b, p in zip(before, ours))
        step_along(optimizer, lambda *numbers: told.append(numbers) or rate)
        moved = [(b - p.detach()) / rate for b, p in zip(before, ours)]
        slope = sum((q.grad * d).sum().item() for q, d in zip(theirs, moved))
        norms = [math.sqrt(sum(x.square().sum().item() for x in xs)) for xs in (moved, before)]
        assert told[-1] == pytest.approx((slope, *norms, sum(p.numel() for p in ours)), rel=1e-3)
    assert max((p - q).abs().max().item() for p, q in zip(ours, theirs)) <= 1e-6


def test_the_rate_of_the_forget_optimizer_is_as_it_was_after_a_step_of_a_length():
    made, forget = of_gradients()
    forget.param_groups[0]["lr"] = 0.3
    optimizer = FastSlow(torch.optim.AdamW(made, lr=0.7), forget)
    with optimizer.forget_phase(None, length=lambda *numbers: 0.0):
        optimizer.step()
    assert forget.param_groups[0]["lr"] == 0.3 and optimizer.param_groups[0]["lr"] == 0.7
    optimizer.set_rate(0.2)
    assert optimizer.base.param_groups[0]["lr"] == 0.2


class Held(TorchDispatchMode):
    """How many numbers the tensors made inside held at the same time, at most."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak = {}, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        found = operation(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        if isinstance(found, torch.Tensor) and found.untyped_storage().data_ptr() not in given:
            self.alive[id(found)] = found.numel()
            weakref.finalize(found, self.alive.pop, id(found), None)
        self.peak = max(self.peak, sum(self.alive.values()))
        return found


def test_no_second_copy_of_the_weights_is_made():
    made, optimizer = of_gradients()
    optimizer.step()
    one = made[0].numel()
    with Held() as held:
        step_along(optimizer, lambda *numbers: 1e-3)
    assert one <= held.peak <= 4 * one < sum(p.numel() for p in made)
    with Held() as held:
        kept = list(directions(optimizer))  # this is what a copy looks like
    assert held.peak >= sum(d.numel() for *_, d in kept) == sum(p.numel() for p in made)


@pytest.mark.parametrize("fault", ["drift", "farther"])
def test_what_learn_steps_do_slows_no_forget_step(fault):
    """Beside learn steps neither drift of the retained side nor a loss above the original's is their doing."""
    gains = []
    for alone in (True, False):
        control = Strength(Plan(alone=alone))
        control.begin(0, 30)
        if fault == "drift":
            control.drift = 1.0
        else:
            control.measure(1.0, 1.0, 1.0)
        control.measure(1.0 if fault == "drift" else 3.0, 1.0, 1.0)
        gains.append(control.gain)
    assert gains[0] < 1 <= gains[1]
