"""Train a classifier on images and their variants, and find the epoch at which it shows what it learns slowly."""

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
from transformers import PreTrainedModel, TrainerCallback

from ..data.protocols import SizedDataset
from ..evaluation.classification import accuracy, predictions
from ..training.recipes import train_classifier
from .sam import SharpnessAware
from .slow import elbow

Optimizer = Literal["adamw", "sgd"]
RATES: dict[str, float] = {"adamw": 2e-3, "sgd": 0.05}  # for small classifiers from scratch
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4


def fit(
    model: PreTrainedModel,
    dataset: SizedDataset,
    seed: int,
    optimizer: Optimizer = "adamw",
    rho: float = 0.0,
    output_dir: str | None = None,
    learning_rate: float | None = None,
    callbacks: list[TrainerCallback] | None = None,
    **overrides: Any,
) -> float:
    """Train `model` in place on `dataset` and return the seconds it took.

    Args:
        optimizer: AdamW, or SGD with momentum 0.9 and weight decay 5e-4.
        rho: Radius of sharpness-aware minimisation around that optimizer; 0 is plain training.
        output_dir: Where to save the model; None saves none.
        learning_rate: Default 2e-3 for AdamW, 0.05 for SGD.
        overrides: Fields of UnlearnConfig.

    Raises:
        ValueError: the optimizer is unknown, or what `UnlearnConfig` and `SharpnessAware` refuse.
    """
    if optimizer not in RATES:
        raise ValueError(f"optimizer {optimizer!r} is not one of {', '.join(RATES)}")
    rate = RATES[optimizer] if learning_rate is None else learning_rate
    given: dict[str, Any] = {"callbacks": callbacks}
    if optimizer == "sgd":  # the stock trainer's has no momentum
        given["optimizer_cls_and_kwargs"] = (torch.optim.SGD, {"lr": rate, "momentum": MOMENTUM})
        overrides.setdefault("weight_decay", WEIGHT_DECAY)  # of the weights, as transformers groups them
    method = SharpnessAware(rho=rho) if rho else None
    return train_classifier(model, dataset, seed, output_dir, method, given, learning_rate=rate, **overrides)


class ErrorCurve(TrainerCallback):
    """After each epoch, the share of the training samples that the model misreads, and its weights.

    errors: the shares. weights: state dicts on the CPU, one after each epoch.
    """

    def __init__(self, model: PreTrainedModel, dataset: SizedDataset):
        self.model, self.dataset = model, dataset
        self.errors: list[float] = []
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.errors.append(1 - accuracy(predictions(self.model, self.dataset)).number)
        self.weights.append({name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()})


def train_early(
    build: Callable[[], PreTrainedModel],
    dataset: SizedDataset,
    epochs: int,
    seed: int,
    optimizer: Optimizer = "adamw",
    **overrides: Any,
) -> tuple[PreTrainedModel, int, list[float]]:
    """Train a new model for some epochs and return it as it was at the elbow of its training error.

    Args:
        build: Makes an untrained model.
        overrides: As in `fit`.

    Returns:
        (the model after that epoch, the epoch counted from 1, the training error after each epoch).

    Raises:
        ValueError: there are fewer than three epochs, or the error does not fall.
    """
    if epochs < 3:
        raise ValueError(f"an elbow needs the error of at least 3 epochs, got {epochs}: train longer")
    model = build()
    curve = ErrorCurve(model, dataset)
    length = {"max_steps": -1, "num_train_epochs": epochs, "warmup_steps": 0, "lr_scheduler_type": "constant"}
    fit(model, dataset, seed, optimizer, callbacks=[curve], **{**length, **overrides})
    epoch = elbow(curve.errors)
    early = copy.deepcopy(model)
    early.load_state_dict(curve.weights[epoch - 1])
    return early, epoch, curve.errors
