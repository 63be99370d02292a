"""From a concept to whom attacks meet: pictures, readers, ceiling and controls of a text-to-image model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..evaluation.concept_share import ConceptLatents
from ..families import side_of
from ..families.concepts import Concept
from ..families.latents import Drawing, draw_latents
from ..families.vae import decoded
from .base import Reader, Subject, Target
from .readers import LatentReader
from .running import Trial

FIRST_SEED = 8_000_000  # of the pictures that the original draws; attacks draw from other seeds


@dataclass(frozen=True, eq=False)
class Source:
    """The original as the source of pictures: each is drawn once and kept in `cache_dir`.

    pictures: how many of a concept are drawn.
    """

    original: Any
    cache_dir: str | Path
    drawing: Drawing
    pictures: int = 24

    def latents(self, prompts: Sequence[str], first: int = 0) -> Tensor:
        """(pictures, C, h, w) of the prompts in turn, from the seeds that begin at `first`."""
        wanted = [prompts[i % len(prompts)] for i in range(self.pictures)]
        drawing = replace(self.drawing, seed=FIRST_SEED + first)
        return draw_latents(self.original, wanted, drawing, self.cache_dir)

    @torch.no_grad()
    def images(self, latents: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] of latents (N, C, h, w), on the CPU."""
        vae = self.original.vae
        parts = [decoded(vae, part.to(vae.device)) for part in latents.split(8)]
        return torch.cat([part.float().cpu().clamp(-1, 1) for part in parts])

    def reader(self, concept: Concept, retained: Sequence[str]) -> LatentReader:
        """A reader of a concept without any network but the VAE (`LatentReader`)."""
        prompts = [concept.prompts[i % len(concept.prompts)] for i in range(self.pictures)]
        known = ConceptLatents(
            self.latents(concept.prompts), self.latents(concept.anchors), self._of_retained(retained), prompts
        )
        return LatentReader(self.original.vae, known)

    def _of_retained(self, retained: Sequence[str]) -> Tensor:
        return self.latents(retained, first=100_000)

    def target(
        self,
        concept: Concept,
        reader: Reader,
        images: Tensor | None = None,
        captions: Sequence[str] = (),
    ) -> Target:
        """The concept as the target of attacks: with the images given, or as the original draws it.

        Raises:
            ValueError: the images are not of the size that the model draws.
        """
        prompts = tuple(concept.prompts)
        size = side_of(self.original, self.drawing.resolution)
        if images is not None and images.shape[1:] != (3, size, size):
            given = "x".join(str(side) for side in images.shape[1:])
            raise ValueError(
                f"images of {concept.name!r} are {given}, but the model draws 3x{size}x{size}: resize them"
            )
        if images is None:
            images = self.images(self.latents(prompts))
            captions = [prompts[i % len(prompts)] for i in range(len(images))]
        name = concept.name.partition(":")[2].strip() or concept.name  # of a preset what it is given
        return Target(name, prompts, images, reader, concept.anchors[0], captions=tuple(captions))

    def retained(self, prompts: Sequence[str], reader: Reader) -> Target:
        """What stayed, with images as the original draws them."""
        images = self.images(self._of_retained(prompts))
        captions = [prompts[i % len(prompts)] for i in range(len(images))]
        return Target("what is retained", tuple(prompts), images, reader, captions=tuple(captions))


def text_to_image_trial(
    unlearned: Any,
    original: Any,
    concept: Concept,
    retain_prompts: Sequence[str],
    cache_dir: str | Path,
    drawing: Drawing | None = None,
    images: Tensor | None = None,
    captions: Sequence[str] = (),
    kept: Concept | None = None,
    never: Concept | None = None,
    never_images: Tensor | None = None,
    reader_of: Callable[[Concept], Reader | None] | None = None,
    samples: int = 36,
    pictures: int = 24,
) -> Trial:
    """Whom the attacks on a Stable Diffusion pipeline meet.

    Args:
        concept: what was forgotten. retain_prompts: of what stayed.
        images: (N, 3, H, W) in [-1, 1] of the concept, with the prompts `captions` where they are known. Without them
            the original draws `pictures` of it.
        kept: a retained concept, the positive control; by default the first retained prompt, whose anchor is the last.
        never: a concept that neither model learnt, the negative control; without one there is none.
        never_images: pictures of it, (N, 3, H, W) in [-1, 1]. Without them the original draws what it takes for it.
        reader_of: gives the reader of a concept; by default, and where that is None, `LatentReader`, which needs no
            network but the VAE. A negative control needs a reader that knows the concept, which the latents of the
            original cannot be.
        samples: images that each attack draws from each seed.

    Raises:
        ValueError: fewer than two retained prompts, or a negative control without `reader_of`.
    """
    if len(retain_prompts) < 2:
        raise ValueError("attacks need to know what stayed: give at least two retain_prompts")
    if never is not None and reader_of is None:
        raise ValueError(f"nothing tells what {never.name!r} looks like: pass reader_of with a reader that knows it")
    drawing = drawing or Drawing()
    source = Source(original, cache_dir, drawing, pictures)
    kept = kept or Concept(retain_prompts[0], (retain_prompts[0],), (retain_prompts[-1],))

    def read(one: Concept) -> Reader:
        return (reader_of and reader_of(one)) or source.reader(one, retain_prompts)

    target = source.target(concept, read(concept), images, captions)
    own = Subject(unlearned, target, original, source.retained(retain_prompts, target.reader), drawing, samples)

    def control(one: Concept, images: Tensor | None = None) -> Subject:
        return replace(own, target=source.target(one, read(one), images))

    return Trial(
        own,
        replace(own, model=original),
        positive=control(kept),
        negative=None if never is None else control(never, never_images),
    )
