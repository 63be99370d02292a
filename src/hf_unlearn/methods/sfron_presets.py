"""The settings of SFR-on that its paper and its released code state."""

from typing import Any

# What the released DDPM code does: one Adam, a mask on gradients, no live merge, alpha inside the clipped loss.
REFERENCE: dict[str, Any] = {
    "strength": "rate",
    "forget_loss": "ascent",
    "retain_loss": "data",
    "forget_alpha": 10.0,
    "retain_steps": 1,
    "alpha_on": "loss",
    "bound": "none",
    "loss_floor": 0.0,
    "timestep_normalise": False,
    "forget_optim": "shared",
    "mask_mode": "gradient",
    "fisher": "batch",
}
# The algorithm as written, with a merge that merges.
PAPER: dict[str, Any] = {
    "strength": "rate",
    "forget_loss": "ascent",
    "retain_loss": "data",
    "forget_alpha": 1.0,
    "retain_steps": 1,
    "bound": "none",
    "loss_floor": 0.0,
    "timestep_normalise": False,
    "forget_optim": "shared",
    "slow_rate": 0.5,
}
