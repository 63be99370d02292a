"""A classifier's head with room for further classes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel


@torch.no_grad()
def grow_classes(model: PreTrainedModel, names: Sequence[str]) -> PreTrainedModel:
    """Give a classifier further classes, in place: new rows of its head, and their names in its label maps.

    The logits of the classes that it has stay as they are. A new class begins as the mean of the rows of all that are
    known, so its logit is their mean: no picture that the model is sure of is taken for it. The label of the first new
    class is the number of the old ones. Saved and loaded again it is an ordinary classifier of transformers.

    Args:
        model: a transformers image classifier with a linear head.
        names: of the new classes.

    Returns:
        `model`.

    Raises:
        ValueError: no name is given, a name is taken, or there is no linear head.
    """
    config: Any = model.config
    named = {int(number): name for number, name in (config.id2label or {}).items()}
    known = {number: named.get(number, f"LABEL_{number}") for number in range(config.num_labels or 0)}
    taken = [name for i, name in enumerate(names) if name in known.values() or name in names[:i]]
    if not names or taken:
        raise ValueError(f"class {taken[0]!r} is there already: give another name" if taken else "name a new class")
    heads = _heads(model, len(known))
    if not heads:
        raise ValueError(f"{type(model).__name__} has no linear head of {len(known)} classes: it cannot grow")
    for path, head in heads:
        parent, _, own = path.rpartition(".")
        setattr(model.get_submodule(parent), own, _grown(head, len(names)))
    config.num_labels = len(known) + len(names)  # before the names, which it would write itself
    config.id2label = {**known, **{len(known) + i: name for i, name in enumerate(names)}}
    config.label2id = {name: number for number, name in config.id2label.items()}
    if hasattr(model, "num_labels"):
        setattr(model, "num_labels", config.num_labels)  # noqa: B010  # of many classes, which no annotation names
    return model


def _heads(model: PreTrainedModel, classes: int) -> list[tuple[str, nn.Linear]]:
    """The linear layers outside the base model that give a logit for each class, by their path."""
    base = model.base_model_prefix
    return [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == classes and path.split(".")[0] != base
    ]


def _grown(head: nn.Linear, more: int) -> nn.Linear:
    """The layer with `more` rows, each the mean of those that are there."""
    weight = head.weight
    grown = nn.Linear(head.in_features, head.out_features + more, head.bias is not None, weight.device, weight.dtype)
    for new, old in zip(grown.parameters(), head.parameters(), strict=True):
        new.copy_(torch.cat([old, old.mean(0, keepdim=True).expand(more, *old.shape[1:])]))
        new.requires_grad_(old.requires_grad)
    return grown.train(head.training)
