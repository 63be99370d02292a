"""How images are noised, and what a network is asked to predict: a noise schedule, given to `Denoising`."""

import copy
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3
from torch import Tensor, nn

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
WEIGHTING_SCHEMES = ("none", "logit_normal", "sigma_sqrt", "cosmap")


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

    def times(self, timesteps: Tensor) -> Tensor:
        """(B,) what the network is told of the timesteps."""
        return timesteps

    def weights(self, timesteps: Tensor) -> Tensor | None:
        """(B,) weights of the squared errors; None where all weigh the same."""
        return None


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


class FlowSchedule(NoiseSchedule):
    """x_t = (1 - σ_t) x_0 + σ_t ε, and the target is the velocity ε - x_0 (flow matching; SD3, arXiv 2403.03206).

    t is 0 .. T-1, from little to much noise, and σ_t = s k / (1 + (s - 1) k) with k = (t + 1) / T and the scheduler's
    shift s; a scheduler that shifts by the number of image tokens is given μ. The network is told T σ_t. Timesteps are
    drawn and errors weighted by diffusers' own functions, as its training scripts do.

    Args:
        scheduler: a FlowMatchEulerDiscreteScheduler, or one with `use_flow_sigmas`.
        mu: of the dynamic shift, where the scheduler has one.
        weighting_scheme: "none" draws timesteps uniformly, "logit_normal" u = sigmoid(N(logit_mean, logit_std²));
            "sigma_sqrt" and "cosmap" draw uniformly and weigh the errors.
        logit_mean, logit_std: above 0, the mean draws less noise.

    Raises:
        ValueError: an unknown scheme, or a spread that is not positive.
    """

    sigmas: Tensor  # (T,), increasing

    def __init__(
        self,
        scheduler: Any,
        mu: float | None = None,
        weighting_scheme: str = "none",
        logit_mean: float = 0.0,
        logit_std: float = 1.0,
    ):
        super().__init__()
        if weighting_scheme not in WEIGHTING_SCHEMES:
            raise ValueError(
                f"weighting_scheme must be one of {', '.join(WEIGHTING_SCHEMES)}, got {weighting_scheme!r}"
            )
        if not logit_std > 0:
            raise ValueError(f"logit_std must be positive, got {logit_std}")
        self.scheme, self.logit_mean, self.logit_std = weighting_scheme, logit_mean, logit_std
        config = scheduler.config
        self.num_timesteps = count = config.num_train_timesteps
        if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            own: Any = copy.deepcopy(scheduler)
        else:
            own = FlowMatchEulerDiscreteScheduler(count, shift=config.flow_shift)
        even = np.linspace(1, 1 / count, count, dtype=np.float32)
        own.set_timesteps(sigmas=even, mu=mu if own.config.use_dynamic_shifting else None)
        self.register_buffer("sigmas", own.sigmas[:count].flip(0).float(), persistent=False)

    @staticmethod
    def fits(scheduler: Any) -> bool:
        """Whether a scheduler is of flow matching."""
        return isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or scheduler.config.get("use_flow_sigmas", False)

    def add_noise(self, images: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        sigmas = self.sigmas[timesteps].view(-1, *[1] * (images.ndim - 1))
        return (1 - sigmas) * images + sigmas * noise

    def target(self, images: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return noise - images

    def draw(self, count: int, generator: torch.Generator, antithetic: bool) -> Tensor:
        """As in `NoiseSchedule`. Of a pair the second has 1 - u, or the same with the normal's sign turned."""
        drawn = (count + 1) // 2 if antithetic else count
        u = compute_density_for_timestep_sampling(
            self.scheme, drawn, self.logit_mean, self.logit_std, generator=generator
        )
        if antithetic:
            shifted = self.scheme == "logit_normal" and self.logit_mean != 0
            pair = torch.sigmoid(2 * self.logit_mean - torch.logit(u, 1e-6)) if shifted else 1 - u
            u = torch.cat([u, pair])[:count]
        order = (u * self.num_timesteps).long().clamp(max=self.num_timesteps - 1)
        return self.num_timesteps - 1 - order  # diffusers counts from much noise to little

    def bins(self, timesteps: Tensor, count: int) -> Tensor:
        """Parts that are drawn equally often."""
        share = (timesteps.float() + 0.5) / self.num_timesteps
        if self.scheme == "logit_normal":
            share = torch.special.ndtr((torch.logit(share) + self.logit_mean) / self.logit_std)
        return (share * count).long().clamp(max=count - 1)

    def examples(self) -> Tensor:
        return torch.tensor([self.num_timesteps // 4, self.num_timesteps // 2])

    def times(self, timesteps: Tensor) -> Tensor:
        return self.sigmas[timesteps] * self.num_timesteps

    def weights(self, timesteps: Tensor) -> Tensor | None:
        if self.scheme not in ("sigma_sqrt", "cosmap"):
            return None
        return compute_loss_weighting_for_sd3(self.scheme, sigmas=self.sigmas[timesteps])
