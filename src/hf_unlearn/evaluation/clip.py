"""CLIP score: how well images match their prompts, by a CLIP model of transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from transformers import AutoTokenizer, CLIPModel

from ..common.untrusted import check_folder, loading
from ..families.classifier.load import load_image_processor
from .metric import Metric, version_of


class CLIPScore:
    """Average 100 max(cos(image, text), 0) over pairs (arXiv 2104.08718, scaled as in torchmetrics).

    Args:
        name: folder or Hub id of a CLIPModel with its tokenizer and image processor. Every metric names it, because
            ViT-L/14 and ViT-B/32 give different numbers.
    """

    def __init__(self, name: str = "openai/clip-vit-base-patch32", device: str | torch.device = "cpu"):
        self.name, self.device = name, device
        check_folder(name)
        with loading(name):
            model: Any = CLIPModel.from_pretrained(name, use_safetensors=True)
            self.model = model.to(device, torch.float32).eval()
            self.tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        self.processor = load_image_processor(name)

    def to(self, device: str | torch.device) -> "CLIPScore":
        """Move the model to `device`."""
        self.device, self.model = device, self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image], prompts: Sequence[str], batch_size: int = 32) -> Metric:
        """Score images against their prompts, which are truncated to the model's length.

        Raises:
            ValueError: there are no images, or not one prompt for each image.
        """
        if len(pictures) != len(prompts) or not pictures:
            raise ValueError(f"{len(pictures)} pictures and {len(prompts)} prompts: give one prompt a picture")
        limit = self.model.config.text_config.max_position_embeddings
        scores = []
        for start in range(0, len(pictures), batch_size):
            part = slice(start, start + batch_size)
            tokens = self.tokenizer(
                list(prompts[part]), padding=True, truncation=True, max_length=limit, return_tensors="pt"
            )
            images = [picture.convert("RGB") for picture in pictures[part]]
            pixels = self.processor(images=images, return_tensors="pt")
            out = self.model(**tokens.to(self.device), **pixels.to(self.device))
            cosine = torch.cosine_similarity(out.image_embeds, out.text_embeds)
            scores.append(100 * cosine.clamp(min=0).cpu())
        shown = Path(self.name).resolve().name if Path(self.name).exists() else self.name
        return Metric(
            torch.cat(scores).mean().item(),
            f"CLIP score by {shown}: 100 max(cos, 0), mean over pictures; large is close to the prompt",
            samples=len(pictures),
            library=version_of("torch", "transformers"),
        )
