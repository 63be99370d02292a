"""What is checked before anything is measured or trained: data, options and weights that fit together."""

import inspect
from dataclasses import dataclass
from typing import Any

from torch.utils.data import IterableDataset

from ..data.items import as_tensors, check_items, value_range
from ..data.numerics import bad_samples, bad_weight, in_memory, say_samples
from ..data.pairs import ForgetRetainDataset, example_of, labels_of, paired
from ..data.streaming import RetainStream, StreamedPairs
from ..families.base import Objective
from ..methods import Method
from .config import UnlearnConfig


def resolved_method(objective: Objective, method: Method, args: UnlearnConfig) -> Method:
    """The method for this model, with every "auto" decided.

    Raises:
        ValueError: it cannot run with these arguments on this model; it says what to set.
    """
    if method.fast_steps and args.gradient_accumulation_steps != 1:
        raise ValueError(
            f"{method.name} takes optimizer steps of its own: set gradient_accumulation_steps=1 "
            "and per_device_train_batch_size to the batch you want"
        )
    resolved = method.resolved(objective)
    if objective.adapter is not None and (method.masks_every_step or not method.trains):
        raise ValueError(f"{method.name} works on weights, which an adapter leaves alone: do without LoRA")
    return resolved


# Arguments of transformers' Trainer that have another name or none here.
INSTEAD = {
    "train_dataset": "forget_dataset and retain_dataset",
    "eval_dataset": "eval_forget_dataset and eval_retain_dataset",
    "data_collator": "data sets whose items are ready to be stacked, {pixel_values, labels}, because forget and "
    "retain samples are paired before they are collated",
}


def checked_arguments(args: UnlearnConfig | None, given: dict[str, Any]) -> UnlearnConfig:
    """Return the configuration, by default that of no argument.

    Raises:
        ValueError: `given`, what was passed on to transformers' Trainer, has an argument that this one does not take.
    """
    for name in INSTEAD.keys() & given.keys():
        if given.pop(name) is not None:
            raise ValueError(f"{name} is not taken: give {INSTEAD[name]}")
    return args or UnlearnConfig()


@dataclass
class Sets:
    """The data of a run: the training sets, the pairs made of them, and what `evaluate` measures by name."""

    forget: Any
    retain: Any
    pairs: ForgetRetainDataset | StreamedPairs
    evaluated: dict[str, Any] | None

    @property
    def named(self) -> dict[str, Any]:
        """The training sets that there are, by name."""
        return {name: part for name, part in (("forget", self.forget), ("retain", self.retain)) if part is not None}


def checked_sets(
    objective: Objective, method: Method, args: UnlearnConfig, sets: tuple[Any, Any], eval_sets: tuple[Any, Any]
) -> Sets:
    """Check the training sets and the weights, have the objective choose its anchors, and pair the samples.

    Args:
        sets: the forget and the retain set.
        eval_sets: the forget and the retain set that `evaluate` measures; None stands for the training set.

    Raises:
        ValueError: a set is missing, is not finite, or does not fit the model, the method or the arguments.
    """
    forget, retain = sets
    for name, part in (("forget", forget), ("retain", retain)):
        if name in method.streams and part is None:
            raise ValueError(f"{method.name} needs {name} data: pass {name}_dataset")
    if isinstance(retain, IterableDataset):
        retain = RetainStream(retain)
    taken = inspect.signature(objective.forward).parameters
    known = None if any(p.kind is p.VAR_KEYWORD for p in taken.values()) else taken
    for name, part in (("forget", forget), ("retain", retain)):
        if part is not None:
            check_items(name, part, known)
        example = example_of(part)
        if example is not None:
            objective.check(as_tensors(example), labels_of(part))
            limits = value_range(name, part)
            if limits is not None:
                objective.check_range(*limits)
    _check_finite(objective, {"forget": forget, "retain": retain})
    if forget is not None and objective.conditional:
        lost = set(labels_of(forget) or [])
        if retain is not None:  # an anchor is a class that occurs in it
            lost = (lost | set(objective.class_labels)) - set(labels_of(retain) or [])
        objective.choose_anchors(lost, len(forget), args.draws_seed)
    pairs = paired(forget, retain, method, args)
    if isinstance(retain, RetainStream) and eval_sets[1] is None and args.eval_strategy != "no":
        raise ValueError("a streaming retain set is unbounded: pass eval_retain_dataset")
    given = zip(("forget", "retain"), eval_sets, (forget, retain))
    evaluated = {name: own if other is None else other for name, other, own in given}
    evaluated = {n: p for n, p in evaluated.items() if p is not None and not isinstance(p, RetainStream)}
    return Sets(forget, retain, pairs, evaluated or None)


def _check_finite(objective: Objective, sets: dict[str, Any]) -> None:
    broken = bad_weight(objective.network)
    if broken is not None:
        raise ValueError(f"weight {broken} of the model is not finite: load whole weights, in float32 or bfloat16")
    for name, part in sets.items():
        positions = bad_samples(part) if part is not None and in_memory(part) else []
        if positions:
            raise ValueError(f"{say_samples(name, positions)}: leave them out or mend them")
