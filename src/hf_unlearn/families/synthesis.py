"""From a concept to data: prompts, images that the model draws itself or is given, and the objective around them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.images import ArrayDataset
from ..data.protocols import SizedDataset
from . import TextToImage, encode_prompts
from .concepts import Concept, concept_pairs, prompts_to_retain, same_texts
from .latents import Drawing, draw_latents, encode_images
from .text_to_image.text_encoder import text_to_image_objective


def concept_data(
    pipeline: Any,
    concepts: Sequence[Concept],
    cache_dir: str | Path,
    retain_prompts: Sequence[str] | None = None,
    num_forget_images: int = 64,
    num_retain_images: int = 128,
    drawing: Drawing | None = None,
    forget_images: str = "concept",
    forget: tuple[SizedDataset, Sequence[str] | None] | None = None,
    retain: tuple[SizedDataset, Sequence[str] | None] | None = None,
    image_per_prompt: bool = True,
    **options: Any,
) -> tuple[TextToImage, ArrayDataset, ArrayDataset]:
    """(objective, forget set, retain set) for a Stable Diffusion pipeline, ready for UnlearnTrainer.

    What is drawn and encoded is kept in `cache_dir`, by content.

    Args:
        retain_prompts: what must stay; the model draws the retain images from them. By default a mixed list, without
            its prompts that name a concept (`concepts.prompts_to_retain`).
        forget_images: what the images under the concept's prompts are drawn from: "concept", "anchor", or "both" in
            turn. What is sampled after unlearning passes through states that look like the anchor, in which no image
            of the concept would ever teach the model what to predict.
        forget, retain: (images, captions) instead of drawn ones; without captions forget images take the concept's
            prompts in turn and retain images the empty prompt.
        image_per_prompt: whether every prompt of the concepts needs an image of its own; False for a method that
            only edits, which takes the prompts themselves.
        options: of `TextToImage`; train_method may also be text_encoder.

    Raises:
        ValueError: no concept, fewer forget images than prompts, captions that do not fit, several concepts and
            images that do not say which they show, or a text that is to be forgotten and retained.
    """
    if not concepts:
        raise ValueError("no concept: say what to forget")
    if min(num_forget_images, num_retain_images) < 1:
        raise ValueError("num_forget_images and num_retain_images must be at least 1")
    retain_prompts = prompts_to_retain(concepts, retain_prompts)
    needed = num_forget_images if forget is None and image_per_prompt else None
    pairs = concept_pairs(concepts, needed)
    _check_texts(concepts, pairs, retain_prompts, forget, retain)
    drawing = drawing or Drawing()
    drawn_pairs = [pairs[i % len(pairs)] for i in range(num_forget_images)]
    retain_texts = [retain_prompts[i % len(retain_prompts)] for i in range(num_retain_images)] if not retain else []
    if forget is None:
        forget_texts = [prompt for prompt, _ in drawn_pairs]
        anchored = {"concept": (0, 0), "anchor": (1, 1), "both": (0, 1)}[forget_images]
        sources = [pair[anchored[i // len(pairs) % 2]] for i, pair in enumerate(drawn_pairs)]
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
    for text in forget_texts:  # a caption of a given image goes where the concept that it names goes
        shown = next((concept for concept in concepts if concept.is_in(text)), concepts[0])
        anchors.setdefault(text, shown.anchors[0])
    prompts = encode_prompts(pipeline, [*anchors, *anchors.values(), *retain_texts, *retain_prompts])
    used = {text: anchor for text, anchor in anchors.items() if text != anchor}
    objective = text_to_image_objective(pipeline, prompts, used, **options)

    def data(latents: torch.Tensor, texts: Sequence[str]) -> ArrayDataset:
        return ArrayDataset(latents, torch.tensor([prompts.number(text) for text in texts]))

    return objective, data(forget_latents, forget_texts), data(retain_latents, retain_texts)


def _check_texts(
    concepts: Sequence[Concept],
    pairs: Sequence[tuple[str, str]],
    retain_prompts: Sequence[str],
    forget: tuple[SizedDataset, Sequence[str] | None] | None,
    retain: tuple[SizedDataset, Sequence[str] | None] | None,
) -> None:
    """Raise ValueError for prompts and captions that contradict each other, before anything is drawn or encoded."""
    captions = None if forget is None else forget[1]
    if forget is not None and captions is None and len(concepts) > 1:
        raise ValueError(
            f"{len(concepts)} concepts, but the forget images have no captions that say which one each shows: add a "
            "text column (metadata.jsonl in a folder), or forget one concept a run"
        )
    empty = [i for i, text in enumerate(captions or []) if not text.strip()]
    if empty:
        raise ValueError(f"the caption of forget image {empty[0]} is empty: describe the image, or leave it out")
    unseen = [concept.name for concept in concepts if captions and not any(map(concept.is_in, captions))]
    if unseen and len(concepts) > 1:
        raise ValueError(
            f"concept {unseen[0]!r} is in no caption of the forget images: name it in those of its images, or forget "
            "it in a run of its own"
        )
    erased = [*(prompt for prompt, _ in pairs), *(captions or [])]
    both = same_texts(retain_prompts, erased)
    if both:
        raise ValueError(f"prompt {both[0]!r} is to be forgotten and retained: take it out of retain_prompts")
    both = same_texts(retain[1] or [], erased) if retain is not None else []
    if both:
        raise ValueError(
            f"caption {both[0]!r} of the retain images is also to be forgotten: change it, or leave its "
            f"{len(both)} image{'s' * (len(both) > 1)} out of the retain data"
        )


def _encoded(
    pipeline: Any, source: tuple[SizedDataset, Sequence[str] | None], default: Sequence[str], cache_dir: str | Path
) -> tuple[torch.Tensor, list[str]]:
    """Latents of both flips, and their texts."""
    images, captions = source
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(images)} images have {len(captions)} captions: give one each")
    texts = list(captions if captions is not None else default)
    return encode_images(pipeline.vae, images, cache_dir).pixel_values, texts * 2
