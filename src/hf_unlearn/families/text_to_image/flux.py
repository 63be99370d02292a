"""Flux 1: an MMDiT with single-stream blocks, T5 for the text and CLIP for a pooled embedding."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .denoiser import Encoded, Patched, Told, packed, word_ends


class Flux(Patched):
    """Every patch comes with its place; the places of the text are 0.

    The text sides are those of the double-stream blocks: in the single-stream blocks text and image share all weights.
    [dev] embeds the guidance scale; [schnell] does not.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("FluxPipeline",)
    network_class: ClassVar[str] = "FluxTransformer2DModel"

    def encode(self, pipeline: Any, texts: Sequence[str]) -> Encoded:
        embeds, pooled, _ = pipeline.encode_prompt(list(texts), None, device=pipeline.device)
        return Encoded(embeds, word_ends(pipeline.tokenizer_2, texts, 0), pooled)

    def arguments(self, network: Any, noisy: Tensor, times: Tensor, told: Told) -> dict[str, Any]:
        height, width = noisy.shape[-2] // 2, noisy.shape[-1] // 2
        rows, columns = (torch.arange(side, device=noisy.device, dtype=noisy.dtype) for side in (height, width))
        places = torch.zeros(height, width, 3, device=noisy.device, dtype=noisy.dtype)
        places[..., 1] += rows[:, None]
        places[..., 2] += columns
        return {
            "hidden_states": packed(noisy),
            "timestep": times / 1000,
            "guidance": told.guidance if network.config.guidance_embeds else None,
            "pooled_projections": told.pooled,
            "encoder_hidden_states": told.embeds,
            "txt_ids": torch.zeros(told.embeds.shape[1], 3, device=noisy.device, dtype=noisy.dtype),
            "img_ids": places.flatten(0, 1),
        }
