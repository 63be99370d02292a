"""Noise prediction for `UNet2DModel` pipelines: class-conditional, or unconditional as in DDPMPipeline."""

from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from ..denoising import Denoising
from ..noise import DDPMSchedule


class NoisePrediction(Denoising):
    """Denoising by a UNet2DModel, class-conditional if it embeds classes.

    Args:
        pipeline: has `.unet` and `.scheduler`.
        null_class: the label that means "no class"; default what the pipeline says, or none.
        others: as in `Denoising`.

    Raises:
        ValueError: the pipeline is around another network, or is a bare network.
    """

    def __init__(
        self,
        pipeline: Any,
        label_dropout: float = 0.1,
        null_class: int | None = None,
        antithetic: bool = True,
        forget_label_dropout: bool = False,
        timestep_bins: int = 10,
    ):
        if not isinstance(getattr(pipeline, "unet", None), UNet2DModel):
            given = type(pipeline).__name__
            raise ValueError(f"{given} is no pipeline around a UNet2DModel: pass one, DDPMPipeline(unet, scheduler)")
        unet = pipeline.unet
        null_class = null_class if null_class is not None else getattr(pipeline, "null_class", None)
        super().__init__(
            pipeline,
            unet,
            DDPMSchedule(pipeline.scheduler),
            unet.config.num_class_embeds,
            null_class,
            label_dropout,
            antithetic,
            forget_label_dropout,
            timestep_bins,
        )

    def denoise(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, labels: Tensor | None) -> Tensor:
        return network(noisy, timesteps, class_labels=labels).sample

    def reload_network(self, folder: str) -> Any:
        return UNet2DModel.from_pretrained(folder, subfolder="unet", use_safetensors=True)

    def probe(self, generator: torch.Generator) -> tuple[tuple, dict]:
        labels = torch.tensor(self.class_labels[:2] * 2)[:2] if self.conditional else None
        return self.noisy_probe(generator), {"class_labels": labels}
