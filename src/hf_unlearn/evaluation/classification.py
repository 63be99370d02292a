"""What a classifier still knows: accuracies, distance to a retrained model, membership inference, and their gap."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..data.pairs import collate
from .membership import check_attack, check_logits, log_probabilities, membership_share
from .metric import Metric, version_of

ATTACKS = (("entropy", "logistic"), ("confidence", "svc"))  # (feature, attack) of the tables


@dataclass
class Predictions:
    """A classifier's outputs on one data set: `logits` (N, C) float32 and `labels` (N,), both on the CPU.

    Raises:
        ValueError: shapes do not fit, a label is no column, or a logit is not finite.
    """

    logits: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        check_logits(self.logits, self.labels)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards each module is in the mode it was in (a frozen one stays frozen)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def predictions(model: Any, dataset: Dataset, batch_size: int = 256) -> Predictions:
    """Logits of a transformers image classifier on all of `dataset`, in eval mode, on the model's device.

    Args:
        dataset: items are dicts with "pixel_values" (C, H, W) and "labels" (int or 0-dim tensor).

    Raises:
        ValueError: the data is empty or has no labels, or what `Predictions` raises.
    """
    if len(dataset) == 0:
        raise ValueError("the data set is empty: give at least one sample to evaluate")
    if "labels" not in dataset[0]:
        raise ValueError("the data has no labels: give items with 'pixel_values' and 'labels'")
    logits, labels = [], []
    with _evaluating(model):
        for start in range(0, len(dataset), batch_size):
            batch = collate([dataset[i] for i in range(start, min(start + batch_size, len(dataset)))])
            logits.append(model(pixel_values=batch["pixel_values"].to(model.device, model.dtype)).logits.float().cpu())
            labels.append(batch["labels"].cpu())
    return Predictions(torch.cat(logits), torch.cat(labels))


def accuracy(p: Predictions) -> Metric:
    """Share (0 to 1) of samples whose largest logit is their label's."""
    correct = (p.logits.argmax(1) == p.labels).double()
    return Metric(correct.mean().item(), "share of samples classified as labelled", len(correct), version_of("torch"))


def _both(p: Predictions, reference: Predictions) -> tuple[Tensor, Tensor]:
    """Log probabilities (N, C) of the two; a ValueError unless they are of the same samples and classes."""
    if p.logits.shape != reference.logits.shape or not torch.equal(p.labels, reference.labels):
        shapes = f"{tuple(p.logits.shape)} and {tuple(reference.logits.shape)}"
        raise ValueError(f"predictions {shapes} are not of the same samples and classes: predict on one data set")
    return log_probabilities(p.logits), log_probabilities(reference.logits)


def kl_divergence(p: Predictions, reference: Predictions) -> Metric:
    """Mean over samples of KL(reference || p) = Σ_j r_j (log r_j - log p_j), in nats, from 0 to no bound."""
    log_p, log_r = _both(p, reference)
    value = (log_r.exp() * (log_r - log_p)).sum(1).mean().item()
    return Metric(value, "mean KL(reference || model) in nats; 0 is equal", len(log_p), version_of("torch"))


def js_divergence(p: Predictions, reference: Predictions) -> Metric:
    """Mean over samples of (KL(p || m) + KL(r || m)) / 2 with m = (p + r) / 2, in nats, from 0 to log 2."""
    log_p, log_r = _both(p, reference)
    # log m from the larger of the two: exactly log p where both are equal, and nothing overflows.
    log_m = torch.maximum(log_p, log_r) + torch.log1p(torch.expm1(-(log_p - log_r).abs()) / 2)
    terms = log_p.exp() * (log_p - log_m) + log_r.exp() * (log_r - log_m)
    definition = "mean Jensen-Shannon divergence in nats; 0 is equal, log 2 disjoint"
    return Metric(terms.sum(1).mean().item() / 2, definition, len(log_p), version_of("torch"))


def average_gap(figures: dict[str, float], reference: dict[str, float], names: Sequence[str]) -> float:
    """Mean of |figures[n] - reference[n]| over `names`, in the unit of the figures (points if they are in %).

    Raises:
        ValueError: no names, or a figure that one of the two lacks.
    """
    missing = [name for name in names if name not in figures or name not in reference]
    if missing or not names:
        raise ValueError(f"average gap over {list(names)}: give every figure on both sides, missing are {missing}")
    return sum(abs(figures[name] - reference[name]) for name in names) / len(names)


@dataclass
class Measured:
    """One model's predictions on forget, retain and test, and its figures made from them."""

    predictions: dict[str, Predictions]
    figures: dict[str, Metric]


def measure(
    model: Any,
    sets: dict[str, Dataset],
    attacks: Sequence[tuple[str, str]] = ATTACKS,
    batch_size: int = 256,
    seed: int = 0,
) -> Measured:
    """Accuracies and membership shares of one model on `sets`, which holds forget, retain and test.

    What a retrained model gets can be passed to `classification_figures` any number of times.
    """
    parts = {name: predictions(model, data, batch_size) for name, data in sets.items()}
    figures = {}
    for part, p in parts.items():
        metric = accuracy(p)
        figures[f"{part}_accuracy"] = replace(metric, definition=f"{metric.definition}, of the {part} set")
    retain, test, forget = ((parts[n].logits, parts[n].labels) for n in ("retain", "test", "forget"))
    for feature, attack in attacks:
        figures[f"mia_{feature}_{attack}"] = membership_share(retain, test, forget, feature, attack, seed)
    return Measured(parts, figures)


def classification_figures(
    model: Any,
    forget: Dataset,
    retain: Dataset,
    test: Dataset | None,
    retrained: Any = None,
    attacks: Sequence[tuple[str, str]] = ATTACKS,
    batch_size: int = 256,
    seed: int = 0,
) -> dict[str, Metric]:
    """The figures of the classification tables.

    Args:
        retain: the samples to keep, with evaluation transforms (as all three sets).
        retrained: the model trained without the forget set, which the others are compared with, or what `measure`
            made of it on these sets with these attacks and seed.
        attacks: (feature, attack) as `membership_share` takes them.

    Returns:
        forget_accuracy, retain_accuracy, test_accuracy and mia_<feature>_<attack>, shares from 0 to 1; with
        `retrained` also kl_to_retrained and js_to_retrained (nats, on the forget set) and average_gap (percentage
        points, over the three accuracies and the first attack, as the papers do).

    Raises:
        ValueError: no test set, an unknown attack, a retrained model with other classes, or what `predictions` raises.
    """
    if test is None:
        raise ValueError("no test set: pass samples that no model was trained on, the attacks compare with them")
    for feature, attack in attacks:
        check_attack(feature, attack)
    given = isinstance(retrained, Measured)
    if not (retrained is None or given) and retrained.config.num_labels != model.config.num_labels:
        raise ValueError(
            f"the retrained model has {retrained.config.num_labels} classes and the model {model.config.num_labels}: "
            "retrain with the same label set"
        )
    sets = {"forget": forget, "retain": retain, "test": test}
    ours = measure(model, sets, attacks, batch_size, seed)
    if retrained is None:
        return ours.figures
    theirs = retrained if given else measure(retrained, sets, attacks, batch_size, seed)
    compared = _comparison(ours.predictions["forget"], theirs.predictions["forget"], ours.figures, theirs.figures)
    return {**ours.figures, **compared}


def _comparison(
    p: Predictions, reference: Predictions, figures: dict[str, Metric], retrained: dict[str, Metric]
) -> dict[str, Metric]:
    """Divergences on the forget set, and the average gap over the three accuracies and the first attack."""
    names = list(figures)[:4]
    ours, theirs = ({n: 100 * source[n].value for n in names} for source in (figures, retrained))
    found = {"kl_to_retrained": kl_divergence(p, reference), "js_to_retrained": js_divergence(p, reference)}
    found = {name: replace(m, definition=f"{m.definition}; on the forget set") for name, m in found.items()}
    found["average_gap"] = Metric(
        average_gap(ours, theirs, names),
        f"mean |model - retrained| of {', '.join(names)}, in percentage points; 0 is as retrained",
        samples=len(p.labels),
        library=figures[names[-1]].library,
        details={f"retrained_{name}": metric.value for name, metric in retrained.items()},
    )
    return found
