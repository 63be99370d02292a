"""Sana: a linear transformer with cross attention, Gemma 2 for the text, an autoencoder that shrinks by 32."""

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .denoiser import Denoiser, Encoded, Told


class Sana(Denoiser):
    """Prompts are encoded behind the instruction that the pipeline's call gives them, the empty prompt without it.

    The cross attention reads the embeddings through `caption_projection` and `caption_norm`.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("SanaPipeline",)
    network_class: ClassVar[str] = "SanaTransformer2DModel"
    tokens: ClassVar[int] = 300
    pixels: ClassVar[int] = 32
    cross_attention: ClassVar[bool] = True
    asks: ClassVar[int] = 32
    text_side: ClassVar[tuple[str, ...]] = ("attn2",)
    image_side: ClassVar[tuple[str, ...]] = ("attn1",)
    fixed: ClassVar[tuple[str, ...]] = ("time_embed", "norm_out", "proj_out", "scale_shift_table")

    def encode(self, pipeline: Any, texts: Sequence[str]) -> Encoded:
        call = inspect.signature(pipeline.__call__).parameters
        instruction = call["complex_human_instruction"].default
        rows = [self._encode(pipeline, text, instruction if text else None) for text in texts]
        embeds, mask = (torch.cat(parts) for parts in zip(*rows))
        return Encoded(embeds, (mask.sum(1) - 1).tolist(), mask=mask)

    def _encode(self, pipeline: Any, text: str, instruction: list[str] | None) -> tuple[Tensor, Tensor]:
        options = {"device": pipeline.device, "complex_human_instruction": instruction, "clean_caption": False}
        embeds, mask, *_ = pipeline.encode_prompt([text], False, **options)
        return embeds, mask

    def keys(self, network: Any, embeds: Tensor) -> Tensor:
        place = next(network.caption_projection.parameters())
        return network.caption_norm(network.caption_projection(embeds.to(place)))

    def arguments(self, network: Any, noisy: Tensor, times: Tensor, told: Told) -> dict[str, Any]:
        return {
            "hidden_states": noisy,
            "timestep": times * network.config.timestep_scale,
            "encoder_hidden_states": told.embeds,
            "encoder_attention_mask": told.mask,
        }

    def sampling(self, pipeline: Any, guidance: float, count: int) -> dict[str, Any]:
        """The size is the one that is asked for, not the nearest of a list."""
        return {"guidance_scale": guidance, "use_resolution_binning": False}
