"""`--neighbours`: what became of the words or classes next to what was forgotten."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...attacks.readers import ClassifierReader
from ...attacks.running import Trial
from ...data.class_names import class_numbers, in_words
from ...evaluation.generation import SamplingConfig, sample_classes
from ...evaluation.metric import Metric
from ...evaluation.neighbours import WORDS, nearest_classes, nearest_prompts, read_by_means, retention
from ...evaluation.prompt_files import read_prompts
from ...families.latents import Drawing, draw_latents
from .case import Case

COUNT, SAMPLES = 8, 8  # neighbours, and pictures of each
FIRST_SEED = 9_000_000
NOT_DRAWN = "neighbours are looked at in what a model draws: leave --neighbours out for a classifier"


def named_neighbours(case: Case) -> list[str] | None:
    """The lines of the file of --neighbours; None where it names none.

    Raises:
        ValueError: the file cannot be used, or the model draws nothing.
    """
    if case.flags.neighbours is None:
        return None
    if case.family == "classifier":
        raise ValueError(NOT_DRAWN)
    return [row.prompt for row in read_prompts(case.flags.neighbours)] if case.flags.neighbours else None


def audit(case: Case, trial: Trial, named: list[str] | None) -> dict[str, dict[str, Metric]]:
    """The retention of the neighbours, as metrics of "before" and "after".

    Args:
        named: prompts or classes to look at; None takes those that lie nearest.
    """
    return (_prompts if case.family == "text_to_image" else _classes)(case, trial, named)


def _prompts(case: Case, trial: Trial, named: list[str] | None) -> dict[str, dict[str, Metric]]:
    target = trial.unlearned.target
    if named is None:
        words = [f"{'an' if word[0] in 'aeiou' else 'a'} {word}" for word in WORDS]
        named = nearest_prompts(case.original, target.name, words, COUNT)
    asked = [str(target.asked[0]), *(text for text in dict.fromkeys(named) if text != target.asked[0])]
    drawing = replace(trial.unlearned.sampling, seed=FIRST_SEED)

    def drawn(pipeline: Any) -> Tensor:
        return _latents(pipeline, asked, drawing, case.cache)

    known = drawn(case.original)
    before, after = read_by_means(known, known), read_by_means(known, drawn(case.unlearned))
    return retention(asked, before, after, "the latents of the original's pictures")


def _latents(pipeline: Any, asked: list[str], drawing: Drawing, cache: str) -> Tensor:
    """(N, SAMPLES, C, h, w), with the same noise for every model; sample s of prompt i has the seed of its place."""
    return draw_latents(pipeline, [p for p in asked for _ in range(SAMPLES)], drawing, cache).unflatten(
        0, (len(asked), SAMPLES)
    )


def _classes(case: Case, trial: Trial, named: list[str] | None) -> dict[str, dict[str, Metric]]:
    reader, config = trial.unlearned.target.reader, trial.unlearned.sampling
    if not isinstance(reader, ClassifierReader) or not trial.unlearned.target.asked:
        raise ValueError("a model without classes has no neighbours: leave --neighbours out")
    label = int(trial.unlearned.target.asked[0])
    drawing = SamplingConfig(SAMPLES, config.guidance_scale, config.num_inference_steps, FIRST_SEED)
    names = dict(reader.network.model.config.id2label) if hasattr(reader.network, "model") else {}
    names = {int(number): str(text) for number, text in names.items() if text != f"LABEL_{number}"}
    if named is None:
        with torch.no_grad():
            logits = reader.network(sample_classes(case.original, [label], drawing))
        known = range(min(logits.shape[1], _number_of_classes(case.unlearned)))
        nearest = nearest_classes(logits.cpu(), label, known, COUNT)
    else:
        nearest = [number for number in class_numbers(named, names) if number != label]
    classes = [label, *dict.fromkeys(nearest)]

    def read(pipeline: Any) -> Tensor:
        found = reader.which(sample_classes(pipeline, classes, drawing)).view(len(classes), SAMPLES)
        places = torch.full_like(found, -1)
        for place, number in enumerate(classes):
            places[found == number] = place
        return places

    asked = [in_words(number, names) for number in classes]
    return retention(asked, read(case.original), read(case.unlearned), reader.name)


def _number_of_classes(pipeline: Any) -> int:
    """Classes that a pipeline can be asked for, without its null class where that is the last one."""
    transformer = getattr(pipeline, "transformer", None)
    if transformer is not None:
        return int(transformer.config.num_embeds_ada_norm)
    count = int(pipeline.unet.config.num_class_embeds)
    return count - 1 if pipeline.null_class == count - 1 else count
