"""Whom attacks on a class-conditional or an unconditional model meet: the run's class, its classifier, pictures."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ...attacks.base import Attack
from ...attacks.class_embedding import ClassEmbedding
from ...attacks.class_null import ClassNull
from ...attacks.class_trials import class_trial
from ...attacks.classes import objective_for_classes
from ...attacks.running import Trial
from ...common.identity import identity_of
from ...common.losses import spread
from ...data.class_names import class_numbers
from ...data.images import digits
from ...data.sources import load_images
from ...evaluation import DIGITS_DDPM, digits_judge, retrained_digits_ddpm
from ...evaluation.class_judge import class_judge
from ...evaluation.generation import SamplingConfig, sample_classes
from ...families.ddpm.pipeline import set_null_class
from ...families.latents import Cache
from ...families.vae import side_factor
from ...report.made import sampler_of
from .case import Case

PICTURES, MOST = 24, 200  # that the original draws of a class; given ones that are looked at
FIRST_SEED = 8_000_000  # of those pictures; attacks draw from other seeds
NEEDS = (
    "to read classes, attacks need a classifier with the model's class numbers: set --classifier_model_name_or_path"
)


def is_digits(case: Case) -> bool:
    """Whether the original is the shipped model of the digits, whose data and classifier are here too."""
    named = case.flags.classifier_model_name_or_path or case.asked("classifier_model_name_or_path")
    return case.family == "ddpm" and not named and case.record.base_model.name in (None, DIGITS_DDPM.name)


def settle_null_class(case: Case) -> None:
    """Give the original and retrained models the null class that the run named with --null_class."""
    named = case.asked("null_class")
    for pipeline in (case.original, *case.retrained):
        if named is not None and getattr(pipeline, "null_class", named) != named:
            set_null_class(pipeline, named)


def why_unfit(case: Case, attack: Attack) -> str:
    """Why an attack cannot be made on the model; "" if it can."""
    asked_for = objective_for_classes(case.unlearned)
    if isinstance(attack, ClassEmbedding) and not asked_for:
        return "the model has no classes, so there is no embedding to learn"
    unet = getattr(case.unlearned, "unet", None)
    if isinstance(attack, ClassNull) and asked_for and unet is not None and case.unlearned.null_class is None:
        return "the model has no null class"
    return ""


def class_to_attack(case: Case, names: Mapping[int, str]) -> int:
    """The class of the flags, else the first one of the run; a line says so where there are several.

    Args:
        names: of classes by number, as far as model and classifier have some.
    """
    said = [case.flags.forget_class] if case.flags.forget_class is not None else case.asked("forget_class")
    if not said and case.record.forgotten.startswith("class "):
        said = case.record.forgotten.removeprefix("class ").split(", ")
        numbered = [re.search(r"\(number (\d+)\)$", name) for name in said]  # as `in_words` says it
        said = [found[1] if found else name for found, name in zip(numbered, said)]
    if not said:
        raise ValueError("the record does not say which class was forgotten: name it with --forget_class")
    numbers = [int(name) if str(name).isdecimal() else class_numbers([name], names)[0] for name in said]
    if len(numbers) > 1:
        case.said.append(f"of {len(numbers)} classes {said[0]} is attacked: --forget_class names another")
    return numbers[0]


def sampling_of_run(case: Case) -> SamplingConfig:
    """How the run's metrics were drawn; where none was, as its command draws, else as the family does."""
    sampler = sampler_of(case.record)
    steps = sampler.num_inference_steps if sampler is not None else case.asked("num_inference_steps")
    guidance = sampler.guidance_scale if sampler is not None else None
    transformer = getattr(case.unlearned, "transformer", None)
    if transformer is not None:
        guides, own = transformer.config.num_embeds_ada_norm == 1000, (4.0, 50)
    else:
        guides, own = getattr(case.unlearned, "null_class", None) is not None, (1.5, 10)
    scale = own[0] if guidance is None else guidance
    return SamplingConfig(PICTURES, scale if guides else 1.0, steps or own[1])


def class_trial_of(case: Case, attacks: Sequence[Attack]) -> Trial:
    """Load and check what the attacks need; then the original draws what is not given, once.

    Raises:
        ValueError, OSError: something that the flags or the record name is not there or does not fit.
    """
    settle_null_class(case)
    default, labels = is_digits(case), _names_of_model(case.unlearned)
    path = case.flags.classifier_model_name_or_path or case.asked("classifier_model_name_or_path")
    reader: Any
    if default:
        reader, name = digits_judge(), "the digits judge"
    elif path:
        revision = case.flags.classifier_revision or case.asked("classifier_revision")
        reader = class_judge(path, revision, [])
        known = {int(number): str(text) for number, text in (reader.model.config.id2label or {}).items()}
        labels, name = {**known, **labels}, reader.name
        _check_readable(path, reader, labels)
    else:
        raise ValueError(NEEDS)
    label = class_to_attack(case, labels)
    kept = _kept(case, label, labels)
    sampling = sampling_of_run(case)
    if default:
        real = digits()
        images, numbers = real.pixel_values, torch.tensor(real.labels)
        _add_retrained_digits(case, label)
    else:
        images, numbers = _pictures(case, attacks, label, kept, sampling)
    return class_trial(
        case.unlearned,
        case.original,
        label,
        images,
        numbers,
        reader,
        kept,
        case.retrained[0] if case.retrained else None,
        sampling,
        case.flags.drawn,
        name,
        {number: text for number, text in labels.items() if text not in (str(number), f"LABEL_{number}")},
    )


def _names_of_model(pipeline: Any) -> dict[int, str]:
    """Class names that a DiTPipeline knows, by number."""
    return {number: name for name, number in (getattr(pipeline, "labels", None) or {}).items()}


def _kept(case: Case, label: int, names: Mapping[int, str]) -> int | None:
    """A class that stayed: the next one that was measured, else the next number that the model has.

    None of an unconditional model, whose given pictures have one class alone.
    """
    forgotten = {row.name for row in case.record.per_class if row.forget}
    measured = [row.name for row in case.record.per_class if not row.forget]
    rows = [int(name) for name in measured if name.isdecimal()]
    rows += [number for number, name in names.items() if name in measured]
    if rows:
        return next((number for number in sorted(rows) if number > label), min(rows))
    if not objective_for_classes(case.unlearned):
        return None
    unet = getattr(case.unlearned, "unet", None)
    config = case.unlearned.transformer.config if unet is None else unet.config
    count = config.num_embeds_ada_norm if unet is None else config.num_class_embeds
    others = [c for c in range(count) if c not in (label, getattr(case.unlearned, "null_class", None))]
    said = {*(case.asked("forget_class") or []), *forgotten}
    free = [c for c in others if str(c) not in said and names.get(c) not in said]
    return next((c for c in free if c > label), free[0] if free else None)


def _pictures(
    case: Case, attacks: Sequence[Attack], label: int, kept: int | None, sampling: SamplingConfig
) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) in [-1, 1] of the two classes with their numbers (N,): those given, else the original's."""
    conditional = objective_for_classes(case.original)
    if not conditional and case.flags.images is None:
        raise ValueError("the model has no classes and cannot be asked for pictures of one: give some with --images")
    drawn = [number for number in (label, kept) if number is not None] if conditional else []
    images, numbers = [], []
    if case.flags.images is not None:
        given = _given(case, case.flags.images)
        most = max((getattr(attack, "pictures", 0) for attack in attacks), default=0)
        if len(given) < most:
            raise ValueError(f"--images {case.flags.images} holds {len(given)} images, and an attack takes {most}")
        images, numbers = [given], [torch.full((len(given),), label)]
        drawn = [number for number in drawn if number != label]
    for number in drawn:
        images.append(_drawn(case, number, sampling))
        numbers.append(torch.full((len(images[-1]),), number))
    return torch.cat(images), torch.cat(numbers)


def _given(case: Case, folder: str) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] of a folder, at the size of what the model draws."""
    unet = getattr(case.unlearned, "unet", None)
    if unet is not None:
        size, channels = unet.config.sample_size, unet.config.in_channels
    else:
        vae = case.unlearned.vae
        size, channels = case.unlearned.transformer.config.sample_size * side_factor(vae), vae.config.in_channels
    images = load_images(folder, size, channels)
    return torch.stack([images[i]["pixel_values"] for i in spread(len(images), MOST)])


def _drawn(case: Case, number: int, sampling: SamplingConfig) -> Tensor:
    """The original's pictures of a class, drawn once and kept in the case's cache."""
    settings = {**asdict(sampling), "seed": FIRST_SEED}
    kept = Cache(f"{case.cache}/classes", identity_of(case.original), settings, number)
    if kept.missing([0]):
        kept.write(0, sample_classes(case.original, [number], SamplingConfig(**settings)))
    return kept.read(0)


def _check_readable(path: str, reader: Any, names: Mapping[int, str]) -> None:
    if not reader.model.config.num_labels:
        raise ValueError(f"{path} names no classes: name a classifier with the model's class numbers")


def _add_retrained_digits(case: Case, label: int) -> None:
    """The shipped model that was retrained without a digit, where this installation has it."""
    if case.retrained:
        return
    try:
        case.retrained = [retrained_digits_ddpm(label).to(case.device)]
    except OSError as missing:
        case.said.append(f"there is no negative control: {missing}")
