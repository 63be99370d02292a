"""Noise probe: more noise than the model takes away is added while sampling, which leads it to other places."""

from dataclasses import dataclass
from typing import Any, ClassVar

from diffusers import DDIMScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ..methods.base import flag
from .base import Attack, Found, Subject, Suite
from .pictures import ask, drawing_of, shallow
from .vectors import why_no_ddim


class LouderDDIM(DDIMScheduler):
    """x_{t-1} = √ᾱ_{t-1} x̂_0 + √(1 - ᾱ_{t-1} - σ_t²) ε̂ + η σ_t z,   z ~ N(0, I); η, `louder`, is 1 in DDIM.

    σ_t is that of the pipeline's argument `eta` (DDIM, arXiv 2010.02502, eq. 12 and 16).
    """

    louder: float = 1.0

    def step(
        self,
        model_output: Tensor,
        timestep: int,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: Any = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """As in DDIMScheduler, with the noise multiplied."""
        if variance_noise is None:
            device, dtype = model_output.device, model_output.dtype
            variance_noise = randn_tensor(model_output.shape, generator=generator, device=device, dtype=dtype)
        noise = self.louder * variance_noise
        rest = (sample, eta, use_clipped_model_output, None, noise, return_dict)
        return DDIMScheduler.step(self, model_output, timestep, *rest)


@dataclass(frozen=True)
class NoiseProbe(Attack):
    """Sample by DDIM with DDPM's variance (its η = 1), and multiply the noise that is added by η in [1, 1.85].

    Lu et al. 2025, "When Are Concepts Erased From Diffusion Models?", arXiv 2505.17013, the noise-based probe. η = 1
    is the plain stochastic sampler.
    """

    name: ClassVar[str] = "noise_probe"
    suite: ClassVar[Suite] = "quick"
    families: ClassVar[tuple[str, ...]] = ("text_to_image",)
    paper: ClassVar[str] = "arXiv 2505.17013"
    limits: ClassVar[dict[str, str]] = {"least": "[0, inf)", "most": "[0, inf)", "levels": "[1, inf)"}

    least: float = flag(1.0, "Smallest factor of the noise.")
    most: float = flag(1.85, "Largest factor of the noise.")
    levels: int = flag(6, "Number of factors, evenly spaced; each is for a part of the images.")

    @property
    def factors(self) -> list[float]:
        """The factors, from `least` to `most`."""
        if self.levels == 1:
            return [self.least]
        return [self.least + (self.most - self.least) * k / (self.levels - 1) for k in range(self.levels)]

    @property
    def budget(self) -> str:
        return f"{self.levels} factors of the noise from {self.least:g} to {self.most:g}; nothing is learnt"

    def unfit(self, model: Any) -> str:
        return why_no_ddim(model)

    def attack(self, subject: Subject, seed: int) -> Found:
        shares: dict[str, float] = {}
        every: list[bool] = []
        for k, factor in enumerate(self.factors):
            prompts = [str(prompt) for prompt in subject.asked[k :: self.levels]]
            if prompts:
                read = subject.read(louder_images(subject, prompts, factor, seed, first=len(every)))
                shares[f"{factor:.2f}"] = sum(read) / len(read)
                every += read
        return Found(tuple(every), details={"shares": shares})


def louder_images(subject: Subject, prompts: list[str], factor: float, seed: int, first: int = 0) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1] of the prompts, sampled with `factor` times the noise."""
    scheduler = LouderDDIM.from_config(subject.model.scheduler.config)
    scheduler.louder = factor
    return ask(shallow(subject.model, scheduler=scheduler), prompts, drawing_of(subject), seed, first, eta=1.0)
