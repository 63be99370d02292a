"""Readers: what says of an image whether it shows a concept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils import pt_to_pil
from torch import Tensor, nn

from ..evaluation.clip import CLIPScore
from ..evaluation.concept_share import ConceptLatents, mean_separability, shows_by_means
from ..evaluation.safety import Detector, verdicts
from ..families.latents import posterior_mean


@dataclass(eq=False)
class ClassifierReader:
    """A classifier of images: an image shows the concept if the classifier says its class.

    network: maps images (N, C, H, W) in [-1, 1] to logits (N, classes), or to a tuple of them, of which `head` is the
        number: an `EmojiClassifier` has one head for styles (0) and one for objects (1).
    number: of the class.
    """

    network: Any
    number: int
    head: int | None = None
    name: str = "a classifier"

    @torch.no_grad()
    def which(self, images: Tensor) -> Tensor:
        """Return the class (N,) that it says of each image."""
        found = []
        weight = next(self.network.parameters(), None) if isinstance(self.network, nn.Module) else None
        for part in images.split(256):
            logits = self.network(part if weight is None else part.to(weight))
            found.append((logits if self.head is None else logits[self.head]).argmax(1).cpu())
        return torch.cat(found)

    def __call__(self, images: Tensor) -> Tensor:
        return self.which(images) == self.number


@dataclass(eq=False)
class CLIPReader:
    """A CLIP model: an image shows the concept if it is nearer to one of its prompts than to all others (zero-shot).

    prompts: of the concept; others: of its anchor and of what is retained. Empty ones do not count.
    """

    clip: CLIPScore
    prompts: Sequence[str]
    others: Sequence[str]

    @property
    def name(self) -> str:
        """The CLIP model."""
        return self.clip.name

    def __call__(self, images: Tensor) -> Tensor:
        return self.clip.nearest(pt_to_pil(images), self.prompts, self.others)


@dataclass(eq=False)
class DetectorReader:
    """A detector of unsafe images: an image shows the concept if a score reaches the detector's threshold."""

    detector: Detector

    @property
    def name(self) -> str:
        """The detector and its threshold."""
        return f"{self.detector.name} at {self.detector.threshold:g}"

    def __call__(self, images: Tensor) -> Tensor:
        """Raises OSError if the detector fails on an image, which would otherwise read as safe."""
        found = verdicts(self.detector, pt_to_pil(images))
        failed = next((verdict.error for verdict in found if verdict.error is not None), None)
        if failed is not None:
            raise OSError(f"{self.detector.name} failed on an image: {failed}")
        return torch.tensor([bool(verdict.shown) for verdict in found], dtype=torch.bool)


@dataclass(eq=False)
class LatentReader:
    """No network but the pipeline's VAE: an image shows the concept if its latents are nearer to the mean of the
    original's pictures of one of its prompts than to those of its anchor and to the mean of what is retained.

    vae: of the original. known: latents of the original's pictures.
    """

    vae: Any
    known: ConceptLatents
    name: str = "the latents of the original's pictures"

    @property
    def accuracy(self) -> float:
        """How well it tells the original's concept pictures from its anchor pictures; each is left out when it is
        read. 0.5 is chance."""
        return mean_separability(self.known)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        latents = [posterior_mean(self.vae, part.to(self.vae.device, self.vae.dtype)) for part in images.split(16)]
        return shows_by_means(self.known, torch.cat(latents).float().cpu())
