"""What is checked before anything is measured or trained: data, options and weights that fit together."""

import inspect
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.data import IterableDataset
from transformers.utils import logging

from ..common.files import check_apart
from ..data.items import as_tensors, check_items, value_range
from ..data.numerics import bad_samples, bad_weight, in_memory, say_samples
from ..data.pairs import ForgetRetainDataset, example_of, labels_of, paired
from ..data.streaming import RetainStream, StreamedPairs, few_of
from ..families import Objective, objective_for
from ..methods import Method
from ..saving.adapters import tuner_layers
from .config import UnlearnConfig

LOGGER = logging.get_logger(__name__)
# Arguments of transformers' Trainer that UnlearnTrainer has another way for.
OTHERWISE = {
    "train_dataset": "pass forget_dataset and retain_dataset",
    "eval_dataset": "pass eval_forget_dataset and eval_retain_dataset",
    "data_collator": "items are stacked as they are, so have the data sets return tensors of one shape",
    "compute_loss_func": "the method says what is minimised, so derive one from Method",
    "model_init": "pass the model itself",
}


def checked_arguments(args: Any, others: dict[str, Any]) -> UnlearnConfig:
    """The arguments of the run, UnlearnConfig's defaults for None.

    Args:
        others: further arguments of transformers' Trainer.

    Raises:
        ValueError: they are of another class, or one of `others` means nothing here.
    """
    if args is not None and not isinstance(args, UnlearnConfig):
        raise ValueError(
            f"args is a {type(args).__name__}: pass an UnlearnConfig, which takes the same values and more"
        )
    for name in OTHERWISE.keys() & others.keys():
        if others[name] is not None:
            raise ValueError(f"UnlearnTrainer takes no {name}: {OTHERWISE[name]}")
        del others[name]
    return args or UnlearnConfig()


def objective_of(model: Any, processor: Any = None) -> Objective:
    """The objective of a model, with the image processor that is saved beside it, if one is given and it has none.

    Raises:
        ValueError: what `objective_for` raises.
    """
    objective = objective_for(model)
    if processor is not None and getattr(objective, "processor", processor) is None:
        objective.processor = processor
    return objective


def check_network(objective: Objective, args: UnlearnConfig) -> None:
    """Raise ValueError, with what to do, unless the network holds weights that can be trained and saved."""
    network = objective.network
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.is_meta:
            raise ValueError(f"{name} of the model is on the meta device, without values: load it without device_map")
    if getattr(network, "is_quantized", False):
        raise ValueError("the model is quantised, so its weights cannot be trained: load it in float32 or bfloat16")
    if objective.adapter is None and tuner_layers(network):
        raise ValueError(
            "the model holds an adapter of peft: merge it (merge_and_unload, fuse_lora) to train all weights, or "
            "unload it and let add_lora (--use_lora) make the adapter that is trained"
        )
    free = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if not free:
        raise ValueError("no weight of the model can be trained: call requires_grad_(True) on those that should move")
    other = next((name for name, p in free.items() if p.dtype not in (torch.float32, torch.bfloat16)), None)
    if other is not None:
        kind = str(free[other].dtype).removeprefix("torch.")
        raise ValueError(
            f"{other} is {kind}, which cannot be trained: load float32 and set bf16 or fp16 for less memory"
        )
    if args.checkpoints_activations and not objective.checkpointable:
        raise ValueError(
            f"{type(network).__name__} cannot checkpoint its activations: leave activation_checkpointing "
            "(--gradient_checkpointing) out, and lower per_device_train_batch_size to save memory"
        )
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if args.checkpoints_activations and norms and objective.adapter is None:
        raise ValueError(
            f"the BatchNorm of {type(network).__name__} would count every batch twice, whose activations are computed "
            "again: leave activation_checkpointing (--gradient_checkpointing) out"
        )


class Strengthened(Protocol):
    """Arguments of a run, or the flags that they are made of."""

    @property
    def find_strength(self) -> bool | None:
        """Whether no learning rate is given."""


def method_for(method: Method, args: Strengthened) -> Method:
    """The method as these arguments run it: at their learning rate, if one is given."""
    return method if args.find_strength else method.at_rate()


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
    if method.second_order and args.checkpoints_activations:
        raise ValueError(
            f"{method.name} differentiates gradients with these options, which needs all activations: leave "
            "activation_checkpointing (--gradient_checkpointing) out, or take its first-order form"
        )
    resolved = method_for(method, args).resolved(objective)
    if objective.adapter is not None and (method.masks_every_step or not method.trains):
        raise ValueError(f"{method.name} works on weights, which an adapter leaves alone: do without LoRA")
    return resolved


@dataclass
class Sets:
    """The data of a run: the training sets, the pairs made of them, and what `evaluate` measures by name.

    method: what is decided for these sets (`Method.sized`).
    """

    method: Method
    forget: Any
    retain: Any
    learn: Any
    pairs: ForgetRetainDataset | StreamedPairs
    evaluated: dict[str, Any] | None

    @property
    def named(self) -> dict[str, Any]:
        """The training sets that there are, by name."""
        every = {"forget": self.forget, "retain": self.retain, "learn": self.learn}
        return {name: part for name, part in every.items() if part is not None}


def _say_what_lacks(objective: Objective, wanted: Method, method: Method, args: UnlearnConfig, retain: Any) -> None:
    """Warn in one line where the data keep a method from finding its strength, not what it was told."""
    told = getattr(wanted, "forget_loss", "auto") != "auto" or not (wanted.finds_strength and args.find_strength)
    if told or method.finds_strength or not objective.labels_are_targets:
        return
    lacks, remedy = "samples of retained classes without held-out ones", "holdout_dataset (--validation_data_dir)"
    if isinstance(retain, RetainStream):
        lacks, remedy = (
            "a stream of retain samples, whose classes are not known before",
            "a retain set that has a length",
        )
    LOGGER.warning(
        f"{method.name} cannot find its strength for {lacks}, and takes the learning rate {args.learning_rate:g}: "
        f"pass {remedy}"
    )


def checked_sets(
    objective: Objective,
    method: Method,
    args: UnlearnConfig,
    sets: tuple[Any, Any],
    eval_sets: tuple[Any, Any],
    holdout: Any = None,
    learn: Any = None,
) -> Sets:
    """Check the training sets and the weights, have the objective choose its anchors, and pair the samples.

    Args:
        method: as it was given; the sets hold it resolved.
        sets: the forget and the retain set.
        eval_sets: the forget and the retain set that `evaluate` measures; None stands for the training set, of a
            denoiser for at most 2,048 samples of it.
        holdout: samples that a classifier was never trained on, or None.
        learn: samples to learn, or None.

    Raises:
        ValueError: a set is missing, is not finite, or does not fit the model, the method or the arguments.
    """
    forget, retain = sets
    given = {"learn": learn, "forget": forget, "retain": retain}
    method = method.for_data([name for name, part in given.items() if part is not None])
    resolved_method(objective, method, args)
    if args.output_dir and objective.base_model:
        check_apart(args.output_dir, objective.base_model, "the folder of the model", holding=False, inside=False)
    if isinstance(retain, IterableDataset):
        retain = RetainStream(retain)
    taken = inspect.signature(objective.forward).parameters
    known = None if any(p.kind is p.VAR_KEYWORD for p in taken.values()) else taken
    for name, part in (("forget", forget), ("retain", retain), ("learn", learn), ("holdout", holdout)):
        if part is not None:
            check_items(name, part, known)
        example = example_of(part)
        if example is not None:
            objective.check(as_tensors(example), labels_of(part))
            limits = value_range(name, part)
            if limits is not None:
                objective.check_range(*limits)
    objective.know(forget, retain, holdout, learn)
    wanted, method = method, resolved_method(objective, method, args)
    if method.needs_unseen and not objective.knows_unseen:
        raise ValueError(
            "forget_loss='unseen' needs the labels of a retain set that lacks the forgotten classes, or samples that "
            "were held out: pass holdout_dataset (--validation_data_dir)"
        )
    _say_what_lacks(objective, wanted, method, args, retain)
    method = method.sized(
        *(None if part is None or isinstance(part, RetainStream) else len(part) for part in (forget, retain))
    )
    given = {"forget": forget, "retain": retain, "learn": learn}
    _check_finite(objective, given)
    changed = learn if forget is None else forget
    if changed is not None and objective.conditional:
        lost = set(labels_of(changed) or [])
        if retain is not None:  # an anchor is a class that occurs in it
            lost = (lost | set(objective.class_labels)) - set(labels_of(retain) or [])
        objective.choose_anchors(lost, len(changed), args.draws_seed)
    pairs = paired(forget, retain, method, args, learn)
    if isinstance(retain, RetainStream) and eval_sets[1] is None and args.eval_strategy != "no":
        raise ValueError("a streaming retain set is unbounded: pass eval_retain_dataset")
    own = {name: part for name, part in given.items() if part is not None and not isinstance(part, RetainStream)}
    if not objective.labels_are_targets:  # of a classifier every sample counts: its accuracy is what is asked for
        own = {name: few_of(part) for name, part in own.items()}
    evaluated = own | {name: part for name, part in zip(("forget", "retain"), eval_sets) if part is not None}
    return Sets(method, forget, retain, learn, pairs, evaluated or None)


def _check_finite(objective: Objective, sets: dict[str, Any]) -> None:
    broken = bad_weight(objective.network)
    if broken is not None:
        raise ValueError(f"weight {broken} of the model is not finite: load whole weights, in float32 or bfloat16")
    for name, part in sets.items():
        positions = bad_samples(part) if part is not None and in_memory(part) else []
        if positions:
            raise ValueError(f"{say_samples(name, positions)}: leave them out or mend them")
