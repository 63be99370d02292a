"""Stable Diffusion 3 and 3.5: an MMDiT, two CLIP text encoders and T5, which may be missing."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from .denoiser import Denoiser, Encoded, Told, word_ends
from .sd import StableDiffusion


class StableDiffusion3(Denoiser):
    """Latents enter as they are; the last block has no text side.

    The embeddings are those of both CLIPs, side by side, then those of T5. Vectors that attacks learn stand in the
    CLIPs; T5 reads their places as words. 3.5 medium has second attentions over the image, `attn2`, which are not
    cross attention.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusion3Pipeline",)
    network_class: ClassVar[str] = "SD3Transformer2DModel"
    tokens: ClassVar[int] = 77 + 256
    vectors: ClassVar[tuple[tuple[str, str], ...]] = StableDiffusion.vectors

    def encode(self, pipeline: Any, texts: Sequence[str]) -> Encoded:
        options = {"device": pipeline.device, "do_classifier_free_guidance": False}
        texts = list(texts)
        embeds, _, pooled, _ = pipeline.encode_prompt(texts, None, None, **options)
        return Encoded(embeds, word_ends(pipeline.tokenizer, texts), pooled)

    def arguments(self, network: nn.Module, noisy: Tensor, times: Tensor, told: Told) -> dict[str, Any]:
        return {
            "hidden_states": noisy,
            "timestep": times,
            "encoder_hidden_states": told.embeds,
            "pooled_projections": told.pooled,
        }
