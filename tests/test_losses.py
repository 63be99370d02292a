import pytest
import torch

from hf_unlearn.common.losses import adaptive_mean, adaptive_weights, masked_mean, spread

LOSSES = torch.tensor([0.5, 2.0, 8.0])


def test_masked_mean_is_the_mean_of_the_chosen():
    assert masked_mean(LOSSES, torch.tensor([True, False, True])) == 4.25
    assert masked_mean(LOSSES, torch.zeros(3, dtype=torch.bool)) == 0
    with pytest.raises(ValueError, match="sample mask"):
        masked_mean(LOSSES, torch.ones(2, dtype=torch.bool))


def test_masked_mean_keeps_what_is_not_finite_outside_out():
    losses = torch.tensor([1.0, float("inf"), float("nan")], requires_grad=True)
    mean = masked_mean(losses, torch.tensor([True, False, False]))
    mean.backward()
    assert mean == 1 and losses.grad.tolist() == [1, 0, 0]


def test_masked_mean_gives_no_gradient_outside():
    losses = LOSSES.clone().requires_grad_()
    masked_mean(losses, torch.tensor([True, False, True])).backward()
    assert losses.grad.tolist() == [0.5, 0.0, 0.5]


def test_exponent_zero_is_the_plain_mean():
    assert torch.isclose(adaptive_mean(LOSSES, 0.0), LOSSES.mean(), atol=1e-6)


def test_weights_are_inverse_powers_that_sum_to_one():
    expected = torch.tensor([1 / 0.5, 1 / 2.0, 1 / 8.0]) ** 0.5
    assert torch.allclose(adaptive_weights(LOSSES, 0.5), expected / expected.sum(), atol=1e-6)
    for exponent in (0.0, 0.5, 3.0):
        assert adaptive_weights(LOSSES, exponent, floor=1.0).sum() == pytest.approx(1, abs=1e-6)


def test_no_gradient_through_the_weights():
    losses = LOSSES.clone().requires_grad_()
    adaptive_mean(losses, 0.5).backward()
    assert torch.allclose(losses.grad, adaptive_weights(LOSSES, 0.5))


def test_a_sample_of_loss_zero_takes_all_the_weight_only_without_a_floor():
    """Released code: one saturated forget sample silences the whole forget step."""
    losses = torch.tensor([0.0, 1.0, 1.0, 1.0])
    assert adaptive_weights(losses, 0.5, eps=1e-15)[0] > 0.999999
    assert adaptive_weights(losses, 0.5, floor=0.25)[1:].sum() > 0.5


def test_without_a_floor_a_solved_sample_makes_the_gradient_vanish():
    """The loss of that sample is 0 and so is its gradient: the others' share is all that could move anything."""
    sizes = {}
    for floor in (0.0, 1e-4):
        outputs = torch.tensor([0.0, 1.0, 1.0, 1.0], requires_grad=True)
        adaptive_mean(outputs**2, 1.0, floor=floor).backward()
        sizes[floor] = outputs.grad.norm().item()
    assert sizes[0.0] < 1e-7 and sizes[1e-4] > 1e-4
    assert sizes[1e-4] == pytest.approx(2 * 3**0.5 / (1e4 + 3), rel=1e-3)


def test_scale_makes_weights_relative():
    """The same relative loss at an easy and at a hard timestep weighs the same."""
    losses, typical = torch.tensor([0.02, 2.0, 4.0]), torch.tensor([0.01, 1.0, 1.0])
    weights = adaptive_weights(losses, 0.5, scale=typical)
    assert torch.isclose(weights[0], weights[1]) and weights[2] < weights[1]


def test_inactive_samples_weigh_nothing():
    active = torch.tensor([True, True, False])
    assert adaptive_weights(LOSSES, 0.5, active=active)[2] == 0
    assert torch.isclose(adaptive_weights(LOSSES, 0.5, active=active).sum(), torch.tensor(1.0))
    losses = LOSSES.clone().requires_grad_()
    adaptive_mean(losses, 0.5, active=torch.zeros(3, dtype=torch.bool)).backward()
    assert losses.grad.tolist() == [0, 0, 0]
    assert adaptive_mean(LOSSES, 0.5, active=torch.zeros(3, dtype=torch.bool)) == 0


def test_spread_is_even_and_bounded():
    assert spread(10, 5) == [0, 2, 4, 6, 8]
    assert spread(3, 5) == [0, 1, 2]
