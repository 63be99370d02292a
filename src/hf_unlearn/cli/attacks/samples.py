"""Whom attacks on an image classifier meet: the forgotten samples, samples never seen, models trained without them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...attacks.base import Attack
from ...attacks.class_trials import classifier_trial
from ...attacks.classifier_membership import ClassifierIAM, ClassifierRMIA
from ...attacks.classifier_residual import ClassifierResidual
from ...attacks.running import Trial
from ...common.losses import spread
from ...data.pairs import halves, labels_of
from ...report.forgetting import kind_of
from ...training import recipes
from ..classifier_flags import held_out_images, processor_of, split_train, train_images
from .case import Case
from .flags import UNSEEN

MOST = 2000  # samples of each kind that are looked at


def why_unfit(case: Case, attack: Attack) -> str:
    """Why an attack cannot be made with the models at hand; "" if it can."""
    needed = {ClassifierIAM: 1, ClassifierResidual: 1}.get(type(attack), 0)
    if isinstance(attack, ClassifierRMIA):
        needed = attack.references
    if needed <= len(case.retrained):
        return ""
    return (
        f"it needs {needed} models trained without the forget data (--retrained_model), and has {len(case.retrained)}"
    )


def samples_trial(case: Case, attacks: Sequence[Attack]) -> Trial:
    """The forget samples, unseen ones of their classes, and the retrained models, of which the last is the control.

    Where there are no more of them than the attacks need there is no control.

    Raises:
        ValueError, OSError: the data of the run are not here, or nothing of them is unseen.
    """
    forget, unseen = case.data if case.data is not None else samples_of_run(case)
    if unseen is None:
        raise ValueError(UNSEEN)
    references, retrained = list(case.retrained), None
    needed = max((getattr(attack, "references", 1) for attack in attacks if not attack.counts_steps), default=0)
    if len(references) > needed:
        retrained = references.pop()
    return classifier_trial(case.unlearned, case.original, _tensors(forget), _tensors(unseen), references, retrained)


def samples_of_run(case: Case) -> tuple[Any, Any]:
    """(forget, unseen) sets as the run's command split its data; unseen is None where the data hold none.

    Raises:
        ValueError: the record has no command.
    """
    if not case.asked.known:
        raise ValueError(
            "no command made the run, so its forget samples are not known: call hf_unlearn.attacks.run_attacks from "
            "Python"
        )
    model, data, *_ = case.asked.parts
    train: Any
    unseen: Any
    seed = case.asked("seed")
    if model.pretrained_model_name_or_path is None:
        parts = recipes.digits_splits(seed)
        train, unseen = parts["train"], parts["test"]
    else:
        processor = processor_of(data, case.original, case.processor, model.pretrained_model_name_or_path)
        train = train_images(data, case.original, processor)
        unseen = held_out_images(data, case.original, processor)
        steered = kind_of(case.record) == "samples" and case.record.method.options.get("strength") == "auto"
        if unseen is not None and steered:  # the first half said how unseen samples look, and so is not unseen
            unseen = halves(unseen)[1]
    return split_train(data, train, case.original, seed)[0], unseen


def _tensors(samples: Any) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) and labels (N,), at most `MOST` spread over them all."""
    labels, chosen = labels_of(samples) or [], spread(len(samples), MOST)
    images = torch.stack([samples[i]["pixel_values"] for i in chosen])
    return images, torch.tensor([labels[i] for i in chosen])
