"""PixArt-Sigma: a DiT with cross attention that predicts noise, T5 for the text."""

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from .denoiser import Denoiser, Encoded, Told, word_ends


class PixArtSigma(Denoiser):
    """The network predicts noise and a variance, which is cut off. The cross attention reads the embeddings through
    `caption_projection`, where there is one."""

    pipelines: ClassVar[tuple[str, ...]] = ("PixArtSigmaPipeline",)
    network_class: ClassVar[str] = "PixArtTransformer2DModel"
    tokens: ClassVar[int] = 300
    cross_attention: ClassVar[bool] = True
    asks: ClassVar[int] = 8
    text_side: ClassVar[tuple[str, ...]] = ("attn2",)
    image_side: ClassVar[tuple[str, ...]] = ("attn1",)
    fixed: ClassVar[tuple[str, ...]] = ("adaln_single", "proj_out", "scale_shift_table")

    def encode(self, pipeline: Any, texts: Sequence[str]) -> Encoded:
        cleaned = inspect.signature(pipeline.__call__).parameters["clean_caption"].default
        embeds, mask, *_ = pipeline.encode_prompt(list(texts), False, device=pipeline.device, clean_caption=cleaned)
        return Encoded(embeds, word_ends(pipeline.tokenizer, texts, 0), mask=mask)

    def keys(self, network: Any, embeds: Tensor) -> Tensor:
        if network.caption_projection is None:
            return embeds
        return network.caption_projection(embeds.to(next(network.caption_projection.parameters())))

    def arguments(self, network: Any, noisy: Tensor, times: Tensor, told: Told) -> dict[str, Any]:
        return {
            "hidden_states": noisy,
            "timestep": times,
            "encoder_hidden_states": told.embeds,
            "encoder_attention_mask": told.mask,
            "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
        }

    def sampling(self, pipeline: Any, guidance: float, count: int) -> dict[str, Any]:
        """The size is the one that is asked for, not the nearest of a list."""
        return {"guidance_scale": guidance, "use_resolution_binning": False}
