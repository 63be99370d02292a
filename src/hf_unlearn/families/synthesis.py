"""From a concept to data: prompts, images that the model draws itself or is given, and the objective around them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.images import ArrayDataset
from ..data.protocols import SizedDataset
from . import TextToImage, encode_prompts
from .concepts import RETAIN_PROMPTS, Concept
from .latents import Drawing, draw_latents, encode_images
from .text_to_image.text_encoder import text_to_image_objective


def concept_data(
    pipeline: Any,
    concepts: Sequence[Concept],
    cache_dir: str | Path,
    retain_prompts: Sequence[str] = RETAIN_PROMPTS,
    num_forget_images: int = 64,
    num_retain_images: int = 128,
    drawing: Drawing | None = None,
    forget_images: str = "concept",
    forget: tuple[SizedDataset, Sequence[str] | None] | None = None,
    retain: tuple[SizedDataset, Sequence[str] | None] | None = None,
    **options: Any,
) -> tuple[TextToImage, ArrayDataset, ArrayDataset]:
    """(objective, forget set, retain set) for a Stable Diffusion pipeline, ready for UnlearnTrainer.

    What is drawn and encoded is kept in `cache_dir`, by content.

    Args:
        retain_prompts: what must stay; the model draws the retain images from them.
        forget_images: "concept", or "anchor": the images under the concept's prompts are drawn from the anchor's.
        forget, retain: (images, captions) instead of drawn ones; without captions forget images take the concept's
            prompts in turn and retain images the empty prompt.
        options: of `TextToImage`; train_method may also be text_encoder.

    Raises:
        ValueError: no concept, fewer than one image, captions that do not fit, or a retain prompt that is to be
            forgotten.
    """
    if not concepts:
        raise ValueError("no concept: say what to forget")
    if min(num_forget_images, num_retain_images) < 1:
        raise ValueError("num_forget_images and num_retain_images must be at least 1")
    pairs = [pair for concept in concepts for pair in zip(concept.prompts, concept.anchors)]
    both = sorted({prompt for prompt, _ in pairs} & set(retain_prompts))
    if both:
        raise ValueError(f"prompt {both[0]!r} is to be forgotten and retained: take it out of retain_prompts")
    drawing = drawing or Drawing()
    drawn_pairs = [pairs[i % len(pairs)] for i in range(num_forget_images)]
    retain_texts = [retain_prompts[i % len(retain_prompts)] for i in range(num_retain_images)] if not retain else []
    if forget is None:
        forget_texts = [prompt for prompt, _ in drawn_pairs]
        sources = [pair[forget_images == "anchor"] for pair in drawn_pairs]
        forget_latents = draw_latents(pipeline, sources, drawing, cache_dir)
    else:
        turns = [pairs[i % len(pairs)][0] for i in range(len(forget[0]))]
        forget_latents, forget_texts = _encoded(pipeline, forget, turns, cache_dir)
    if retain is None:
        seeds = Drawing(**{**vars(drawing), "seed": drawing.seed + 1_000_000})  # other noise than the forget images
        retain_latents = draw_latents(pipeline, retain_texts, seeds, cache_dir)
    else:
        retain_latents, retain_texts = _encoded(pipeline, retain, [""] * len(retain[0]), cache_dir)
    anchors = dict(pairs)
    fallback = pairs[0][1]  # captions of given forget images go where the concept goes
    anchors |= {text: fallback for text in forget_texts if text not in anchors}
    prompts = encode_prompts(pipeline, [*anchors, *anchors.values(), *retain_texts, *retain_prompts])
    used = {text: anchor for text, anchor in anchors.items() if text != anchor}
    objective = text_to_image_objective(pipeline, prompts, used, **options)

    def data(latents: torch.Tensor, texts: Sequence[str]) -> ArrayDataset:
        return ArrayDataset(latents, torch.tensor([prompts.number(text) for text in texts]))

    return objective, data(forget_latents, forget_texts), data(retain_latents, retain_texts)


def _encoded(
    pipeline: Any, source: tuple[SizedDataset, Sequence[str] | None], default: Sequence[str], cache_dir: str | Path
) -> tuple[torch.Tensor, list[str]]:
    """Latents of both flips, and their texts."""
    images, captions = source
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(images)} images have {len(captions)} captions: give one each")
    texts = list(captions if captions is not None else default)
    return encode_images(pipeline.vae, images, cache_dir).pixel_values, texts * 2
