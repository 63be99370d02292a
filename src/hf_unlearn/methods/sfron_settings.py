"""The limits of SFR-on's numbers, and the settings that its paper and its released code state."""

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
LIMITS = {
    "retain_steps": "[1, inf)",
    "forget_alpha": "[0, inf)",
    "adaptive_exponent": "[0, inf)",
    "loss_floor": "[0, inf)",
    "bound_margin": "(0, inf)",
    "resist_relearning": "[0, inf)",
    "relearning_rate": "(0, inf)",
    "forget_max_norm": "[0, inf)",
    "forget_learning_rate": "[0, inf)",
    "mask_threshold": "[0, inf)",
    "fisher_samples": "[0, inf)",
    "fisher_batch_size": "[1, inf)",
    "slow_rate": "(0, 1]",
}
