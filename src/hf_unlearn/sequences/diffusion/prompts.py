"""Sequences on text-to-image pipelines: a key is a prompt."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...data.protocols import SizedDataset
from ...data.sources import load_captioned_images
from ...families import denoiser_of, side_of
from ...families.concept_words import RETAIN_PROMPTS, TEMPLATES
from ...families.concepts import Concept, concept_of
from ...families.denoising import Denoising
from ...families.held import Held
from ...families.latents import Drawing, drawn_latents, encode_images
from ...families.text_to_image.objective import TextToImage, encode_prompts
from ..requests import ConceptPart
from .standing import Standing


class PromptPainter:
    """A pipeline that draws prompts.

    A concept stands for the replayed prompts that name it, in which its anchor takes its place; where no prompt does,
    or a request gives templates of its own, for those. Of the mixed list, in which a thing is named once if at all, it
    stands for both.

    Args:
        pipeline: a text-to-image pipeline.
        prompts: what is replayed, and so retained.
        templates: of concepts that no replayed prompt names.
        drawing: how the model draws what is replayed.
        train_method: which of the network's weights are trained.

    Raises:
        ValueError: fewer than two prompts, or one twice.
    """

    kind: ClassVar[str] = "prompts"
    tag: ClassVar[str] = "text-to-image"

    def __init__(
        self,
        pipeline: Any,
        prompts: Sequence[str] = RETAIN_PROMPTS,
        templates: Sequence[str] = TEMPLATES,
        drawing: Drawing | None = None,
        train_method: str = "full",
    ):
        twice = sorted({text for text in prompts if list(prompts).count(text) > 1})
        if len(prompts) < 2 or twice:
            raise ValueError(f"prompt {twice[0]!r} stands twice" if twice else "give at least two prompts to retain")
        self.pipeline, self.templates, self.train_method = pipeline, tuple(templates), train_method
        self.drawing, self.every = drawing or Drawing(), tuple(prompts)

    @property
    def network(self) -> nn.Module:
        return denoiser_of(self.pipeline).network(self.pipeline)

    def pairs(self, part: Any, standing: Standing) -> dict[str, str]:
        if not isinstance(part, ConceptPart):
            raise ValueError(f"{part.text}: a request to a text-to-image model names a concept")
        concept = self._concept(part)
        named = [] if part.templates else [key for key in standing.every if concept.is_in(key)]
        replaced = {key: _instead(key, part.concept, part.anchor) for key in named}
        if named and self.every != RETAIN_PROMPTS:
            return replaced
        return replaced | dict(zip(concept.prompts, concept.anchors, strict=True))

    def _concept(self, part: ConceptPart) -> Concept:
        if not part.templates and self.templates == TEMPLATES:  # it may be a preset
            return concept_of(part.concept, part.anchor)
        return concept_of(part.concept, part.anchor, part.templates or self.templates, held_out=())

    def check_learnable(self, part: Any) -> None:
        if not part.images or not Path(part.images).exists():
            raise ValueError(f"{part.text} is learnt from pictures: images {part.images} does not exist")

    def objective(self, keys: Sequence[str], anchors: Mapping[str, str], held: Held | None = None) -> Denoising:
        prompts = encode_prompts(self.pipeline, [*keys, *anchors.values()])
        made = TextToImage(self.pipeline, prompts, dict(anchors), train_method=self.train_method)
        made.held = held
        return made

    def number(self, objective: Any, key: str) -> int:
        return objective.prompts.number(key)

    @torch.no_grad()
    def draw(self, keys: Sequence[str], seed: int) -> Tensor:
        self.pipeline.set_progress_bar_config(disable=True)
        return drawn_latents(self.pipeline, keys, replace(self.drawing, seed=seed))

    def images(self, part: Any) -> SizedDataset:
        return load_captioned_images(part.images, side_of(self.pipeline, self.drawing.resolution))[0]

    def encoded(self, images: SizedDataset, folder: Path) -> Tensor:
        return encode_images(self.pipeline.vae, images, folder).pixel_values

    def key_of(self, images: SizedDataset, keys: Sequence[str], position: int) -> str:
        captions = getattr(images, "captions", None)
        said: str = captions[position] if captions else ""
        return said if said in keys else sorted(keys)[position % len(keys)]


def _instead(prompt: str, concept: str, anchor: str | None) -> str:
    """A prompt with the anchor in the place of the concept; the empty prompt without an anchor."""
    if anchor is None:
        return ""
    old, new = (re.sub(r"^(a|an|the) ", "", " ".join(text.split()), flags=re.IGNORECASE) for text in (concept, anchor))
    found = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", lambda match: new, prompt, flags=re.IGNORECASE)
    if found == prompt:
        raise ValueError(f"prompt {prompt!r} does not hold the words {old!r}: give templates")
    return found
