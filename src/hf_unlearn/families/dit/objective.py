"""Diffusion transformers: `DiTPipeline`, class labels, latents, a learned variance half."""

import math
from typing import Any

import torch
from diffusers import DiTTransformer2DModel
from diffusers.models.embeddings import LabelEmbedding
from torch import Tensor, nn

from ..denoising import Denoising
from ..noise import DDPMSchedule


class DiTPrediction(Denoising):
    """Denoising by the transformer of a DiTPipeline (arXiv 2212.09748); `pixel_values` are latents (C, h, w).

    The network predicts 2C channels, noise and variance. The losses are those of the noise half: that is all that
    DiTPipeline samples with, it throws the other half away. With `variance_weight` the loss on data adds the
    variational term that trains the variance half (Nichol & Dhariwal, arXiv 2102.09672, eq. 15 and 16, the mean
    fixed), and matching losses compare that half too.

    Labels are dropped by our draws only, which resumed runs and other numbers of processes share: diffusers' own
    random dropout, active in train mode and in forget steps too, is switched off in the loaded network. The saved
    configuration is not touched.

    Args:
        variance_weight: weight of the variational term; 0 leaves the variance half alone.
        others: as in `Denoising`.
    """

    log_betas: Tensor  # this and the next five: (T, 1, 1, 1)
    log_posterior: Tensor
    mean_of_start: Tensor
    mean_of_noisy: Tensor
    noise_to_signal: Tensor
    inverse_signal: Tensor

    def __init__(
        self,
        pipeline: Any,
        label_dropout: float = 0.1,
        antithetic: bool = True,
        forget_label_dropout: bool = False,
        timestep_bins: int = 10,
        variance_weight: float = 0.0,
    ):
        if not isinstance(getattr(pipeline, "transformer", None), DiTTransformer2DModel):
            given = type(pipeline).__name__
            raise ValueError(f"{given} is no pipeline around a DiTTransformer2DModel: pass a DiTPipeline")
        network = pipeline.transformer
        classes = network.config.num_embeds_ada_norm
        schedule = DDPMSchedule(pipeline.scheduler)
        rest = (label_dropout, antithetic, forget_label_dropout, timestep_bins)
        super().__init__(pipeline, network, schedule, classes + 1, classes, *rest)
        kind = schedule.prediction_type
        if kind != "epsilon":
            raise ValueError(f"a DiT predicts noise, but the scheduler says prediction_type {kind!r}")
        self.channels = network.config.in_channels
        self.learns_variance = network.out_channels == 2 * self.channels
        if variance_weight and not self.learns_variance:
            raise ValueError("the model has no variance half: set variance_weight=0")
        self.variance_weight = variance_weight
        betas = pipeline.scheduler.betas.double()
        now = (1 - betas).cumprod(0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), now[:-1]])
        posterior = betas * (1 - before) / (1 - now)
        posterior[0] = posterior[1]  # β̃ at t = 0 is 0; as in the released code, its log is that of the next one
        # q(x_{t-1} | x_t, x_0) has mean a x_0 + b x_t; in double, because 1 - ᾱ is tiny where t is small.
        tables = {
            "log_betas": betas.log(),
            "log_posterior": posterior.log(),
            "mean_of_start": before.sqrt() * betas / (1 - now),
            "mean_of_noisy": (1 - betas).sqrt() * (1 - before) / (1 - now),
            "noise_to_signal": ((1 - now) / now).sqrt(),
            "inverse_signal": now.rsqrt(),
        }
        for name, table in tables.items():
            self.register_buffer(name, table.float().view(-1, 1, 1, 1), persistent=False)
        for module in self._label_embeddings():
            module.dropout_prob = 0.0

    def _label_embeddings(self) -> list[LabelEmbedding]:
        return [module for module in self.network.modules() if isinstance(module, LabelEmbedding)]

    @property
    def label_tables(self) -> list[nn.Embedding]:
        """One a block of the transformer: each embeds the class for itself."""
        return [module.embedding_table for module in self._label_embeddings()]

    def denoise(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, labels: Tensor | None) -> Tensor:
        """(B, C, H, W) noise, or (B, 2C, H, W) with the variance half where that is trained."""
        output = network(noisy, timestep=timesteps, class_labels=labels).sample
        return output if self.variance_weight else output[:, : self.channels]

    def errors(self, prediction: Tensor, target: Tensor, images: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Squared errors (B,) where the halves match; against noise alone, that of the noise plus the variational
        term."""
        if prediction.shape == target.shape:
            return super().errors(prediction, target, images, noisy, timesteps)
        noise, variance = prediction.split(self.channels, dim=1)
        own = super().errors(noise, target, images, noisy, timesteps)
        return own + self.variance_weight * self.variational_term(noise.detach(), variance, images, noisy, timesteps)

    def variational_term(
        self, noise: Tensor, variance: Tensor, images: Tensor, noisy: Tensor, timesteps: Tensor
    ) -> Tensor:
        """T / 1000 times L_vlb (B,) in bits per dimension, whose gradient reaches `variance` alone.

        KL(q(x_{t-1} | x_t, x_0) || N(μ_θ, Σ_θ)) for t > 0 and -log p_θ(x_0 | x_1), discretised to 8 bits, for t = 0
        (DDPM, arXiv 2006.11239, eq. 5 and 13), log Σ_θ = v log β_t + (1 - v) log β̃_t with v in [0, 1].
        """
        log_beta, log_posterior = self.log_betas[timesteps], self.log_posterior[timesteps]
        share = (variance.float() + 1) / 2
        log_variance = share * log_beta + (1 - share) * log_posterior
        start = self.inverse_signal[timesteps] * noisy - self.noise_to_signal[timesteps] * noise
        true_mean, mean = (self._posterior_mean(x, noisy, timesteps) for x in (images, start))
        ratio = (log_posterior - log_variance).exp()
        kl = (log_variance - log_posterior - 1 + ratio + (true_mean - mean) ** 2 * (-log_variance).exp()) / 2
        likelihood = _discretised_log_likelihood(images, mean, log_variance / 2)
        first = (timesteps == 0).view(-1, 1, 1, 1)
        bits = torch.where(first, -likelihood, kl).flatten(1).mean(1) / math.log(2)
        return bits * self.schedule.num_timesteps / 1000

    def _posterior_mean(self, start: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0 = start)."""
        return self.mean_of_start[timesteps] * start + self.mean_of_noisy[timesteps] * noisy

    def reload_network(self, folder: str) -> Any:
        return DiTTransformer2DModel.from_pretrained(folder, subfolder="transformer", use_safetensors=True)

    def probe(self, generator: torch.Generator) -> tuple[tuple, dict]:
        noisy, timesteps = self.noisy_probe(generator)
        return (noisy,), {"timestep": timesteps, "class_labels": torch.tensor([0, self.null_class])}


def _discretised_log_likelihood(x: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """log of the Gaussian's mass on the 1/255-wide bin of x in [-1, 1]; the outermost bins are open (DDPM, eq. 13)."""
    scale = (-log_scales).exp()
    above = torch.special.ndtr(scale * (x - means + 1 / 255))
    below = torch.special.ndtr(scale * (x - means - 1 / 255))
    mass = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return mass.clamp(min=1e-12).log()
