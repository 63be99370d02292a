"""Whom attacks on a text-to-image model meet: the concept of the run, its pictures, what stayed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...attacks.base import Attack, Reader
from ...attacks.readers import CLIPReader, DetectorReader, LatentReader
from ...attacks.running import Trial
from ...attacks.trials import text_to_image_trial
from ...common.losses import spread
from ...data.sources import load_captioned_images
from ...evaluation.clip import CLIPScore
from ...evaluation.extras import why_missing
from ...evaluation.safety import DETECTORS
from ...families import side_of
from ...families.concepts import Concept, concept_of, prompts_to_retain, same_texts
from ...families.latents import Drawing
from ...report.made import sampler_of
from .case import Case

MOST = 200  # given pictures that are looked at; no attack learns from more


def concept_to_attack(case: Case) -> Concept:
    """The concept of the flags, else the first one of the run; a line says so where there are several."""
    flags, asked, record = case.flags, case.asked, case.record
    names = list(asked("concept") or [])
    if flags.concept is not None and flags.concept not in names:
        return concept_of(flags.concept, flags.anchor_concept)
    if names:
        name = flags.concept or names[0]
        if len(names) > 1 and flags.concept is None:
            case.said.append(f"of {len(names)} concepts {name!r} is attacked: --concept names another")
        anchor, templates = flags.anchor_concept or asked("anchor_concept"), asked("prompt_templates")
        return concept_of(name, anchor, templates, asked("held_out_templates"))
    anchors = record.objective.anchors if record.objective is not None else []
    if not anchors:
        raise ValueError("the record does not say which prompts were forgotten: name the concept with --concept")
    return Concept(record.forgotten, tuple(a.forget for a in anchors), tuple(a.anchor for a in anchors))


def retained_prompts(case: Case, concept: Concept) -> list[str]:
    """Prompts of what stayed. Raises ValueError where nobody says them, or there are fewer than two."""
    prompts = case.flags.retain_prompts or case.asked("retain_prompts")
    if not prompts and not case.asked.known:
        raise ValueError("the record does not say what stayed: give at least two --retain_prompts")
    every = prompts_to_retain([concept], prompts)
    forgotten = same_texts(every, concept.prompts)
    prompts = [prompt for prompt in every if prompt not in forgotten]
    if len(prompts) < 2:
        raise ValueError("attacks need to know what stayed: give at least two --retain_prompts")
    return prompts


def drawing_of_run(case: Case) -> Drawing:
    """How the run's metrics were drawn; where none was, as its command drew, else as `Drawing` does."""
    sampler, asked = sampler_of(case.record), case.asked
    default = Drawing()
    if sampler is None:
        values = {name: asked(name) for name in ("num_inference_steps", "guidance_scale", "resolution")}
        drawing = replace(default, **{name: value for name, value in values.items() if value is not None})
    else:
        guidance = default.guidance_scale if sampler.guidance_scale is None else sampler.guidance_scale
        drawing = replace(
            default,
            num_inference_steps=sampler.num_inference_steps,
            guidance_scale=guidance,
            resolution=sampler.height,
        )
    return replace(drawing, batch_size=asked("drawing_batch_size") or default.batch_size)


def given_pictures(folder: str, size: int) -> tuple[Tensor, list[str]]:
    """Images (N, 3, size, size) in [-1, 1] of a folder, at most `MOST`, and their captions where they have some.

    Raises:
        ValueError: the folder holds no image.
    """
    images, captions = load_captioned_images(folder, size)
    chosen = spread(len(images), MOST)
    shown = torch.stack([images[i]["pixel_values"] for i in chosen])
    return shown, [captions[i] for i in chosen] if captions else []


def concept_trial(case: Case, attacks: Sequence[Attack]) -> Trial:
    """Load and check what the attacks need; then the original draws what is not given, once.

    Raises:
        ValueError, OSError: something that the flags or the record name is not there or does not fit.
    """
    concept = concept_to_attack(case)
    prompts, drawing = retained_prompts(case, concept), drawing_of_run(case)
    size = side_of(case.unlearned, drawing.resolution)
    images, captions = given_pictures(case.flags.images, size) if case.flags.images else (None, [])
    never, never_images = None, None
    if case.flags.never_concept is not None and case.flags.never_images is not None:
        never = concept_of(case.flags.never_concept)
        never_images = given_pictures(case.flags.never_images, size)[0]
    trial = text_to_image_trial(
        case.unlearned,
        case.original,
        concept,
        prompts,
        case.cache,
        drawing,
        images,
        captions,
        never=never,
        never_images=never_images,
        reader_of=_readers(case, prompts),
        samples=case.flags.drawn,
    )
    if not case.retrained:
        return trial
    return replace(trial, negative=replace(trial.unlearned, model=case.retrained[0]))


def _readers(case: Case, prompts: Sequence[str]) -> Callable[[Concept], Reader | None]:
    """What reads which concept: the detector of an unsafe one, else CLIP; None leaves it to the original's latents.

    Raises:
        ValueError: no CLIP model reads the concept that was never learnt.
    """
    flags = case.flags
    named = flags.clip_model or case.asked("clip_model")
    if flags.never_concept is not None and not named:
        raise ValueError("the latents of the original cannot know what it never learnt: set --clip_model")
    clip = CLIPScore(named, case.device) if named else None
    detector = flags.safety_detector or case.asked("safety_detector") or "none"
    if detector == "auto":  # of the run, which took this one where it is installed
        detector = "none" if why_missing("nsfw") else "open_nsfw"

    def read(one: Concept) -> Reader | None:
        if one.unsafe and detector != "none":
            return DetectorReader(DETECTORS[detector]())
        if clip is None:
            return None
        others = [*one.anchors, *(prompt for prompt in prompts if prompt not in one.prompts)]
        return CLIPReader(clip, one.prompts, [text for text in others if text])

    return read


def about_the_reader(trial: Trial) -> dict[str, Any]:
    """What goes with every metric: how well the reader tells the concept from its anchor, where that is known."""
    reader = trial.unlearned.target.reader
    return {"separable": reader.accuracy} if isinstance(reader, LatentReader) else {}
