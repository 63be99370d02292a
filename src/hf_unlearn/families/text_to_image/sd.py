"""Stable Diffusion 1.x and 2.x, and SDXL: a UNet with cross attention, one CLIP text encoder or two."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from .denoiser import Denoiser, Encoded, Told, word_ends


class StableDiffusion(Denoiser):
    """`encoder_hidden_states` are the embeddings."""

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionPipeline",)
    part: ClassVar[str] = "unet"
    network_class: ClassVar[str] = "UNet2DConditionModel"
    cross_attention: ClassVar[bool] = True
    asks: ClassVar[int] = 8
    text_side: ClassVar[tuple[str, ...]] = ("attn2",)
    image_side: ClassVar[tuple[str, ...]] = ("attn1",)
    fixed: ClassVar[tuple[str, ...]] = ("time_embed", "time_embedding", "conv_out", "conv_norm_out")
    vectors: ClassVar[tuple[tuple[str, str], ...]] = (
        ("tokenizer", "text_encoder"),
        ("tokenizer_2", "text_encoder_2"),
    )

    def encode(self, pipeline: Any, texts: Sequence[str]) -> Encoded:
        options = {"device": pipeline.device, "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
        encoded = pipeline.encode_prompt(list(texts), **options)
        # SDXL and SD3: prompt, negative, pooled, negative pooled
        return Encoded(encoded[0], word_ends(pipeline.tokenizer, texts), encoded[2] if len(encoded) == 4 else None)

    def arguments(self, network: nn.Module, noisy: Tensor, times: Tensor, told: Told) -> dict[str, Any]:
        return {"sample": noisy, "timestep": times, "encoder_hidden_states": told.embeds}

    def guidance(self, pipeline: Any) -> float:
        """7.5, of SDXL too."""
        return 7.5


class StableDiffusionXL(StableDiffusion):
    """The pooled embeddings and the sizes are told beside the text."""

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionXLPipeline",)

    def arguments(self, network: nn.Module, noisy: Tensor, times: Tensor, told: Told) -> dict[str, Any]:
        added = {"text_embeds": told.pooled, "time_ids": told.time_ids}
        return {**super().arguments(network, noisy, times, told), "added_cond_kwargs": added}
