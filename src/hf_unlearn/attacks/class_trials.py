"""From a forgotten class, or the forget samples of a classifier, to whom attacks meet."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..evaluation.generation import SamplingConfig
from .base import Subject, Target
from .classes import objective_for_classes
from .classifiers import classifier_target
from .readers import ClassifierReader
from .running import Trial


def class_trial(
    unlearned: Any,
    original: Any,
    label: int,
    images: Tensor,
    labels: Tensor,
    classifier: Any,
    kept: int | None = None,
    retrained: Any = None,
    sampling: SamplingConfig | None = None,
    samples: int = 36,
    reader_name: str = "the classifier",
    names: dict[int, str] | None = None,
) -> Trial:
    """Whom the attacks on a class-conditional or unconditional pipeline meet.

    Args:
        label: the forgotten class, a number that the classifier reads too.
        images, labels: (N, C, H, W) in [-1, 1] and (N,), real pictures of the forgotten class and of `kept`.
        classifier: logits (N, classes) of images in [-1, 1], such as `digits_judge()` or `class_judge(...)`.
        kept: a class that stayed, the positive control; by default the next number among `labels`.
        retrained: a pipeline trained without the class, the negative control; without one there is none.
        sampling: by default ten steps, with guidance 1.5 where a UNet has a null class.
        samples: images that each attack draws from each seed.

    Raises:
        ValueError: there is no picture of one of the two classes.
    """
    others = sorted({int(c) for c in labels} - {label})
    if kept is None and others:
        kept = next((c for c in others if c > label), others[0])
    conditional = objective_for_classes(unlearned)

    def target(number: int) -> Target:
        shown = images[labels == number]
        if len(shown) == 0:
            raise ValueError(f"there is no picture of class {number}: give some with its label")
        title = (names or {}).get(number, f"class {number}")
        reader = ClassifierReader(classifier, number, None, reader_name)
        return Target(title, (number,) if conditional else (), shown, reader)

    if sampling is None:
        guided = getattr(unlearned, "null_class", None) is not None
        sampling = SamplingConfig() if guided else SamplingConfig(guidance_scale=1.0)
    own = Subject(unlearned, target(label), original, sampling=sampling, samples=samples)
    return Trial(
        own,
        replace(own, model=original),
        positive=None if kept is None else replace(own, target=target(kept)),
        negative=None if retrained is None else replace(own, model=retrained),
    )


def classifier_trial(
    unlearned: Any,
    original: Any,
    forget: tuple[Tensor, Tensor],
    unseen: tuple[Tensor, Tensor],
    references: Sequence[Any],
    retrained: Any = None,
) -> Trial:
    """Whom the attacks on an image classifier meet.

    There is no positive control: the references were trained on what stayed, and say nothing of it.

    Args:
        forget: images (N, C, H, W) as the classifier takes them, and labels (N,), of what was forgotten.
        unseen: the same of samples that no model was trained on, of the same classes at least.
        references: models trained without the forget samples. RMIA takes four, IAM and residual knowledge one.
        retrained: one more such model, the negative control, which is not among the references.

    Raises:
        ValueError: no unseen sample is of a class of the forget samples.
    """
    known = torch.isin(unseen[1], forget[1])
    if not known.any():
        raise ValueError("no unseen sample is of a class of the forget samples: give some that are")
    target = classifier_target("the forget samples", *forget)
    held_out = classifier_target("samples never seen", unseen[0][known], unseen[1][known])
    own = Subject(unlearned, target, original, unseen=held_out, references=tuple(references))
    negative = None if retrained is None else replace(own, model=retrained)
    return Trial(own, replace(own, model=original), negative=negative)
