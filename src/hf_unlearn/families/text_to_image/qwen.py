"""Qwen-Image: an MMDiT, Qwen2.5-VL for the text, an autoencoder of videos."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .denoiser import Encoded, Patched, Told, packed


class QwenImage(Patched):
    """The text is as long as the prompt, so a mask goes with it.

    Guidance is `true_cfg_scale` against the empty prompt. Nothing reads the text that the last block puts out.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("QwenImagePipeline",)
    network_class: ClassVar[str] = "QwenImageTransformer2DModel"

    def encode(self, pipeline: Any, texts: Sequence[str]) -> Encoded:
        embeds, mask = pipeline.encode_prompt(list(texts), device=pipeline.device, max_sequence_length=512)
        if mask is None:  # all are equally long
            mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        return Encoded(embeds, (mask.sum(1) - 1).tolist(), mask=mask)

    def arguments(self, network: Any, noisy: Tensor, times: Tensor, told: Told) -> dict[str, Any]:
        count, _, height, width = noisy.shape
        return {
            "hidden_states": packed(noisy),
            "timestep": times / 1000,
            "guidance": told.guidance if network.config.guidance_embeds else None,
            "encoder_hidden_states_mask": told.mask,
            "encoder_hidden_states": told.embeds,
            "img_shapes": [[(1, height // 2, width // 2)]] * count,
        }

    def idle(self, network: Any) -> set[str]:
        last = f"transformer_blocks.{network.config.num_layers - 1}"
        unread = (f"{last}.attn.to_add_out.", f"{last}.txt_mlp.")
        return {name for name, _ in network.named_parameters() if name.startswith(unread)}

    def guidance(self, pipeline: Any) -> float:
        return 4.0

    def sampling(self, pipeline: Any, guidance: float, count: int) -> dict[str, Any]:
        if pipeline.transformer.config.guidance_embeds:
            return {"guidance_scale": guidance, "true_cfg_scale": 1.0}
        guided = {"negative_prompt": [""] * count} if guidance > 1 else {}
        return {"true_cfg_scale": guidance, **guided}
