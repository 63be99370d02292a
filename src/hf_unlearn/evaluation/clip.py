"""CLIP score: how well images match their prompts, by a CLIP model of transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import normalize
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
        scores = []
        for start in range(0, len(pictures), batch_size):
            part = slice(start, start + batch_size)
            images, texts = self._images(pictures[part]), self._texts(prompts[part])
            scores.append(100 * (images * texts).sum(1).clamp(min=0).cpu())
        return Metric(
            torch.cat(scores).mean().item(),
            f"CLIP score by {self._shown}: 100 max(cos, 0), mean over pictures; large is close to the prompt",
            samples=len(pictures),
            library=version_of("torch", "transformers"),
        )

    @torch.no_grad()
    def nearest(
        self, pictures: Sequence[Image], prompts: Sequence[str], others: Sequence[str], batch_size: int = 32
    ) -> torch.Tensor:
        """Return (N,) bool: which images are nearer to one of `prompts` than to all `others` (zero-shot).

        Empty texts do not count.

        Raises:
            ValueError: no prompt, or no other text, is left.
        """
        own, rest = ([text for text in texts if text.strip()] for texts in (prompts, others))
        if not own or not rest:
            raise ValueError(f"{len(own)} prompts and {len(rest)} others: give one of each at least")
        own_texts, other_texts, found = self._texts(own), self._texts(rest), []
        for start in range(0, len(pictures), batch_size):
            images = self._images(pictures[start : start + batch_size])
            found.append(((images @ own_texts.T).amax(1) > (images @ other_texts.T).amax(1)).cpu())
        return torch.cat(found)

    @torch.no_grad()
    def concept_share(
        self,
        pictures: Sequence[Image],
        prompts: Sequence[str],
        anchors: Sequence[str],
        neighbours: Sequence[str],
        batch_size: int = 32,
    ) -> Metric:
        """Return the share (0 to 1) of images that are nearest to their own prompt: zero-shot, small is forgotten.

        The other choices of an image are its anchor's prompt, unless that is empty, and `neighbours`.

        Raises:
            ValueError: there are no images or neighbours, or not one prompt and one anchor for each image.
        """
        if not len(pictures) == len(prompts) == len(anchors) or not pictures or not neighbours:
            counts = f"{len(pictures)} pictures, {len(prompts)} prompts, {len(anchors)} anchors"
            counts += f", {len(neighbours)} neighbours"
            raise ValueError(f"{counts}: give one prompt and one anchor a picture, and a neighbour")
        others = self._texts(neighbours)
        shows = []
        for start in range(0, len(pictures), batch_size):
            part = slice(start, start + batch_size)
            images = self._images(pictures[part])
            own, anchor = ((images * self._texts(texts[part])).sum(1) for texts in (prompts, anchors))
            anchor[[not text.strip() for text in anchors[part]]] = -torch.inf
            rest = torch.cat([anchor[:, None], images @ others.T], 1)
            shows.append((own > rest.amax(1)).cpu())
        return Metric(
            torch.cat(shows).double().mean().item(),
            f"share of pictures that {self._shown} finds nearer to the concept's prompt than to its anchor's and to "
            f"{len(neighbours)} retained ones (zero-shot); small is forgotten",
            samples=len(pictures),
            library=version_of("torch", "transformers"),
        )

    @property
    def _shown(self) -> str:
        return Path(self.name).resolve().name if Path(self.name).exists() else self.name

    def _texts(self, prompts: Sequence[str]) -> Tensor:
        """Return embeddings (N, D) of length 1."""
        limit = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(list(prompts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        pooled = self.model.text_model(**tokens.to(self.device)).pooler_output
        return normalize(self.model.text_projection(pooled))

    def _images(self, pictures: Sequence[Image]) -> Tensor:
        """Return embeddings (N, D) of length 1."""
        pixels = self.processor(images=[picture.convert("RGB") for picture in pictures], return_tensors="pt")
        pooled = self.model.vision_model(**pixels.to(self.device)).pooler_output
        return normalize(self.model.visual_projection(pooled))
