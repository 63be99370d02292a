"""Text to image through the text encoder: its weights are trained, the UNet's stay as they are."""

from typing import Any

import torch
from torch import Tensor, nn

from ..base import class_names
from .objective import Prompts, TextToImage


class TextEncoderToImage(TextToImage):
    """`TextToImage` whose network is the text encoder of a StableDiffusionPipeline (1.x, 2.x).

    Every forward encodes the prompts anew and goes, with gradient, through the frozen UNet, which costs its
    activations but no optimizer state. A small change that holds for every UNet the encoder is put in front of.

    Args:
        as in `TextToImage`; there is no train_method.

    Raises:
        ValueError: another pipeline; SDXL has two text encoders.
    """

    adaptable = False
    ids: Tensor  # (P, tokens)

    def __init__(self, pipeline: Any, prompts: Prompts, anchors: dict[str, str] | None = None, **options: Any):
        if "StableDiffusionPipeline" not in class_names(pipeline):
            raise ValueError(
                f"the text encoder of {type(pipeline).__name__} cannot be trained: choose another train_method"
            )
        super().__init__(pipeline, prompts, anchors, **options)
        if pipeline.text_encoder.dtype == torch.float16:
            raise ValueError("the text encoder is float16, which cannot be trained: load float32")
        pipeline.unet.requires_grad_(False).eval()
        self.train_method = "text_encoder"
        self.network = pipeline.text_encoder.requires_grad_(True)
        tokenizer = pipeline.tokenizer
        options = dict(padding="max_length", truncation=True, max_length=tokenizer.model_max_length)
        self.register_buffer("ids", torch.tensor(tokenizer(prompts.texts, **options).input_ids), persistent=False)

    def denoise(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, labels: Tensor | None) -> Tensor:
        unet = self.pipeline.unet
        if unet.device != noisy.device:  # no module of this one, so nobody else moves it
            unet.to(noisy.device)
        assert labels is not None  # every image has a prompt
        (embeds,) = self.moved([network(self.ids[labels])[0]])
        return unet(noisy.to(unet.dtype), timesteps, encoder_hidden_states=embeds.to(unet.dtype)).sample

    def release(self) -> None:
        """Move the VAE to the CPU; UNet and text encoder are used."""
        self.pipeline.vae.to("cpu")

    def reload_network(self, folder: str) -> Any:
        return type(self.network).from_pretrained(folder, subfolder="text_encoder", use_safetensors=True)

    def probe(self, generator: torch.Generator) -> tuple[tuple, dict]:
        return (self.ids[:2],), {}


def text_to_image_objective(pipeline: Any, prompts: Prompts, anchors: dict[str, str] | None = None, **options: Any):
    """The objective for a `train_method`: "text_encoder", or one of `TextToImage`'s."""
    if options.get("train_method") != "text_encoder":
        return TextToImage(pipeline, prompts, anchors, **options)
    return TextEncoderToImage(pipeline, prompts, anchors, **{k: v for k, v in options.items() if k != "train_method"})
