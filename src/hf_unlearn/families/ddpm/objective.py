"""Noise prediction for `UNet2DModel` pipelines: class-conditional, or unconditional as in DDPMPipeline."""

from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from ..denoising import Denoising
from ..noise import DDPMSchedule
from .pipeline import check_unet, set_null_class

FAR_OUTSIDE = 10.0  # images that are normalised by their mean and spread stay within


class NoisePrediction(Denoising):
    """Denoising by a UNet2DModel, class-conditional if it embeds classes.

    Args:
        pipeline: has `.unet` and `.scheduler`.
        null_class: the label that means "no class"; default what the pipeline says, or none. The pipeline samples
            with it from then on, and is saved with it.
        others: as in `Denoising`.

    Raises:
        ValueError: the pipeline is around another network, or is a bare network; a UNet whose condition is no class
            number or that predicts more than the noise, or no such class.
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
        check_unet(unet.config)
        if null_class is None:
            null_class = getattr(pipeline, "null_class", None)
        else:
            set_null_class(pipeline, null_class)
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

    @property
    def label_tables(self) -> list[nn.Embedding]:
        return [self.network.class_embedding] if self.conditional else []

    def check_range(self, low: float, high: float) -> None:
        """A UNet on pixels takes [-1, 1]; latents have no range."""
        if any(getattr(self.pipeline, name, None) is not None for name in ("vae", "vqvae")) or low == high:
            return
        how = "x * 2 - 1" if high <= 1 else f"x / {high / 2:g} - 1" if high != 255 else "x / 127.5 - 1"
        if low >= 0:
            raise ValueError(f"pixels lie in [{low:g}, {high:g}], but the model takes [-1, 1]: give {how}")
        if max(-low, high) > FAR_OUTSIDE:
            raise ValueError(f"pixels lie in [{low:g}, {high:g}], but the model takes [-1, 1]: scale them")

    def reload_network(self, folder: str) -> Any:
        return UNet2DModel.from_pretrained(folder, subfolder="unet", use_safetensors=True)

    def probe(self, generator: torch.Generator) -> tuple[tuple, dict]:
        labels = torch.tensor(self.class_labels[:2] * 2)[:2] if self.conditional else None
        return self.noisy_probe(generator), {"class_labels": labels}
