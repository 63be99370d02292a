"""What a model knows after a request: hits by class, and what is left of each thing that was forgotten."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..data.protocols import SizedDataset
from ..evaluation.classification import Predictions, accuracy, predictions
from .tasks import Standing, Tasks

Predict = Callable[[SizedDataset], Predictions]


def measured(
    predict: Predict, tasks: Tasks, standing: Standing, forgotten: dict[int, frozenset[int]]
) -> dict[str, Any]:
    """The figures of one request, as JSON.

    Args:
        standing: what is known after it.
        forgotten: by the number of each forget request so far, the positions that are still forgotten.

    Returns:
        classes: {class: [test samples it gets right, test samples]}, of all classes;
        known: the classes that are known;
        forgotten: {number of a forget request: share of its samples that are classified as labelled}.
    """
    tests = tasks.tests(tasks.task_of)
    assert tests is not None
    found = predict(tests)
    hits = found.logits.argmax(1) == found.labels
    classes = {
        str(label): [int(hits[found.labels == label].sum()), int((found.labels == label).sum())]
        for label in sorted(tasks.task_of)
    }
    left = {}
    for number, positions in forgotten.items():
        data = tasks.samples(positions)
        if data is not None:
            left[str(number)] = accuracy(predict(data)).number
    return {"classes": classes, "known": standing.classes, "forgotten": left}


def predictor(network: Any) -> Predict:
    """Predictions of one classifier."""
    return lambda data: predictions(network, data)


def class_features(network: Any) -> Callable[[Tensor], Tensor]:
    """(N, C, H, W) -> (N, D), what the last layer of a classifier is given, in eval mode."""
    heads = [
        m for m in network.modules() if isinstance(m, torch.nn.Linear) and m.out_features == network.config.num_labels
    ]
    if not heads:
        raise ValueError(f"{type(network).__name__} has no linear layer that gives its classes: use the reservoir")
    head = heads[-1]
    seen: list[Tensor] = []

    @torch.no_grad()
    def features(pixels: Tensor) -> Tensor:
        seen.clear()
        handle = head.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach().flatten(1).cpu()))
        training = network.training
        try:
            network.eval()(pixel_values=pixels.to(network.device, network.dtype))
        finally:
            network.train(training)
            handle.remove()
        return seen[0]

    return features
