"""How images are noised, and what a network is asked to predict: a noise schedule, given to `Denoising`."""

from typing import Any

import torch
from torch import Tensor, nn

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


class NoiseSchedule(nn.Module):
    """Base class. A schedule says how noise is added, what the target is, and how timesteps are drawn.

    Its tables are buffers, so that they move with the objective, and are not saved.
    """

    num_timesteps: int

    def add_noise(self, images: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noisy images (B, C, H, W) at `timesteps` (B,)."""
        raise NotImplementedError

    def target(self, images: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should predict (B, C, H, W)."""
        raise NotImplementedError

    def draw(self, count: int, generator: torch.Generator, antithetic: bool) -> Tensor:
        """Timesteps (count,); `antithetic` draws them in pairs whose mean is the middle of the schedule."""
        raise NotImplementedError

    def bins(self, timesteps: Tensor, count: int) -> Tensor:
        """Which of `count` equal parts of the schedule each timestep lies in."""
        raise NotImplementedError

    def examples(self) -> Tensor:
        """Two timesteps in the middle, for a forward that only checks the network."""
        raise NotImplementedError


class DDPMSchedule(NoiseSchedule):
    """x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε with t in 0 .. T-1 (DDPM, arXiv 2006.11239, eq. 4); the target is ε, v or x_0.

    v = √ᾱ_t ε - √(1-ᾱ_t) x_0 (arXiv 2202.00512).

    Args:
        scheduler: a diffusers scheduler with `alphas_cumprod`.

    Raises:
        ValueError: the scheduler noises otherwise, or the network predicts something else.
    """

    alphas: Tensor  # (T,) ᾱ

    def __init__(self, scheduler: Any):
        super().__init__()
        if not isinstance(getattr(scheduler, "alphas_cumprod", None), Tensor):
            raise ValueError(
                f"the scheduler is a {type(scheduler).__name__}, which does not noise as DDPM does (it has no "
                "alphas_cumprod): give a model with a DDPM, DDIM, PNDM, DPM-Solver or Euler scheduler"
            )
        self.prediction_type = scheduler.config.get("prediction_type", "epsilon")
        if self.prediction_type not in PREDICTION_TYPES:
            raise ValueError(f"prediction_type {self.prediction_type!r} is not one of {', '.join(PREDICTION_TYPES)}")
        self.num_timesteps = scheduler.config.num_train_timesteps
        self.register_buffer("alphas", scheduler.alphas_cumprod.clone().float(), persistent=False)

    def add_noise(self, images: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        alphas = self._alphas(timesteps, images)
        return alphas.sqrt() * images + (1 - alphas).sqrt() * noise

    def target(self, images: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return images
        alphas = self._alphas(timesteps, images)
        return alphas.sqrt() * noise - (1 - alphas).sqrt() * images

    def draw(self, count: int, generator: torch.Generator, antithetic: bool) -> Tensor:
        if not antithetic:
            return torch.randint(self.num_timesteps, (count,), generator=generator)
        half = torch.randint(self.num_timesteps, ((count + 1) // 2,), generator=generator)
        return torch.cat([half, self.num_timesteps - 1 - half])[:count]

    def bins(self, timesteps: Tensor, count: int) -> Tensor:
        return timesteps * count // self.num_timesteps

    def examples(self) -> Tensor:
        return torch.tensor([self.num_timesteps // 4, self.num_timesteps // 2])

    def _alphas(self, timesteps: Tensor, images: Tensor) -> Tensor:
        return self.alphas[timesteps].view(-1, *[1] * (images.ndim - 1))
