"""Flux 2 klein: Qwen3 for the text, latents in patches that the autoencoder's statistics normalise."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

from ..vae import scaled
from .denoiser import Denoiser, Encoded, Told


class Flux2Klein(Denoiser):
    """Our latents (4c, h, w) are the patches already; every token has four coordinates.

    The text sides are those of the double-stream blocks, with their modulation and feed-forward layers left out. The
    distilled models sample in four steps, the base models in fifty, which decides how the noise is shifted.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("Flux2KleinPipeline",)
    network_class: ClassVar[str] = "Flux2Transformer2DModel"
    pixels: ClassVar[int] = 16
    side: ClassVar[int] = 64
    fixed: ClassVar[tuple[str, ...]] = ("time_guidance_embed", "norm_out", "proj_out")

    def encode(self, pipeline: Any, texts: Sequence[str]) -> Encoded:
        embeds, _ = pipeline.encode_prompt(list(texts), device=pipeline.device)
        return Encoded(embeds, [embeds.shape[1] - 1] * len(embeds))  # no cross attention asks for a word's place

    def shape(self, pipeline: Any) -> tuple[int, int, int]:
        side = pipeline.default_sample_size // 2
        return pipeline.transformer.config.in_channels, side, side

    def factor(self, pipeline: Any) -> int:
        return 2 * pipeline.vae_scale_factor

    def shift(self, pipeline: Any, length: int) -> float:
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        return compute_empirical_mu(length, 4 if pipeline.config.is_distilled else 50)

    def arguments(self, network: Any, noisy: Tensor, times: Tensor, told: Told) -> dict[str, Any]:
        count, _, height, width = noisy.shape

        def places(*sides: int) -> Tensor:
            grid = torch.cartesian_prod(*(torch.arange(side, device=noisy.device) for side in sides))
            return grid.expand(count, -1, -1)

        return {
            "hidden_states": noisy.flatten(2).transpose(1, 2),
            "timestep": times / 1000,
            "guidance": told.guidance if network.config.guidance_embeds else None,
            "encoder_hidden_states": told.embeds,
            "txt_ids": places(1, 1, 1, told.embeds.shape[1]),
            "img_ids": places(1, height, width, 1),
        }

    def noise_pred(self, output: Tensor, noisy: Tensor) -> Tensor:
        return output.transpose(1, 2).reshape(noisy.shape)

    def drawn(self, pipeline: Any, images: Tensor, side: int) -> Tensor:
        return scaled(pipeline.vae, pixel_unshuffle(images, 2))
