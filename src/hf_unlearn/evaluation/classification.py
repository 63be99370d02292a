"""Metrics of classifiers: accuracies, distance to a retrained model, membership inference, and the average gap."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..data.pairs import collate
from ..data.protocols import SizedDataset
from .membership import check_attack, check_logits, log_probabilities, membership_share
from .metric import Metric, version_of

ATTACKS = (("entropy", "logistic"), ("confidence", "svc"))  # the (feature, attack) pairs of the tables


@dataclass
class Predictions:
    """A classifier's outputs on one data set: `logits` (N, C) float32 and `labels` (N,), both on the CPU.

    Raises:
        ValueError: the shapes differ, a label is out of range, or a logit is not finite.
    """

    logits: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        check_logits(self.logits, self.labels)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set eval mode inside and restore each module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def predictions(model: Any, dataset: SizedDataset, batch_size: int = 256) -> Predictions:
    """Predict all of `dataset` with a transformers image classifier, in eval mode, on the model's device.

    Args:
        dataset: its items are dicts with "pixel_values" (C, H, W) and "labels" (int or 0-dim tensor).

    Raises:
        ValueError: the data is empty or has no labels, or what `Predictions` raises.
    """
    if len(dataset) == 0:
        raise ValueError("the data set is empty: give at least one sample to evaluate")
    if "labels" not in dataset[0]:
        raise ValueError("the data has no labels: give items with 'pixel_values' and 'labels'")
    logits, labels = [], []
    with evaluating(model):
        for start in range(0, len(dataset), batch_size):
            batch = collate([dataset[i] for i in range(start, min(start + batch_size, len(dataset)))])
            logits.append(model(pixel_values=batch["pixel_values"].to(model.device, model.dtype)).logits.float().cpu())
            labels.append(batch["labels"].cpu())
    return Predictions(torch.cat(logits), torch.cat(labels))


def accuracy(p: Predictions) -> Metric:
    """Return the share (0 to 1) of samples whose largest logit is that of their label."""
    correct = (p.logits.argmax(1) == p.labels).double()
    return Metric(correct.mean().item(), "share of samples classified as labelled", len(correct), version_of("torch"))


def _both(p: Predictions, reference: Predictions) -> tuple[Tensor, Tensor]:
    """Return both log probabilities (N, C). Raises ValueError unless samples and classes are the same."""
    if p.logits.shape != reference.logits.shape or not torch.equal(p.labels, reference.labels):
        shapes = f"{tuple(p.logits.shape)} and {tuple(reference.logits.shape)}"
        raise ValueError(f"predictions {shapes} are not of the same samples and classes: predict on one data set")
    return log_probabilities(p.logits), log_probabilities(reference.logits)


def kl_divergence(p: Predictions, reference: Predictions) -> Metric:
    """Average KL(reference || p) = Σ_j r_j (log r_j - log p_j) over samples, in nats, from 0 without upper bound."""
    log_p, log_r = _both(p, reference)
    value = (log_r.exp() * (log_r - log_p)).sum(1).mean().item()
    return Metric(value, "mean KL(reference || model) in nats; 0 is equal", len(log_p), version_of("torch"))


def js_divergence(p: Predictions, reference: Predictions) -> Metric:
    """Average (KL(p || m) + KL(r || m)) / 2 with m = (p + r) / 2 over samples, in nats, from 0 to log 2."""
    log_p, log_r = _both(p, reference)
    # log m from the larger of the two: exactly log p where both are equal, and nothing overflows.
    log_m = torch.maximum(log_p, log_r) + torch.log1p(torch.expm1(-(log_p - log_r).abs()) / 2)
    terms = log_p.exp() * (log_p - log_m) + log_r.exp() * (log_r - log_m)
    definition = "mean Jensen-Shannon divergence in nats; 0 is equal, log 2 disjoint"
    return Metric(terms.sum(1).mean().item() / 2, definition, len(log_p), version_of("torch"))


def average_gap(figures: dict[str, float], reference: dict[str, float], names: Sequence[str]) -> float:
    """Average |figures[n] - reference[n]| over `names`, in the unit of the metrics (points if they are in %).

    Raises:
        ValueError: there are no names, or a metric is missing on one side.
    """
    missing = [name for name in names if name not in figures or name not in reference]
    if missing or not names:
        raise ValueError(f"average gap over {list(names)}: give every figure on both sides, missing are {missing}")
    return sum(abs(figures[name] - reference[name]) for name in names) / len(names)


@dataclass
class Measured:
    """One model's predictions on forget, retain and test, and the metrics computed from them."""

    predictions: dict[str, Predictions]
    figures: dict[str, Metric]


def measure(
    model: Any,
    sets: dict[str, SizedDataset],
    attacks: Sequence[tuple[str, str]] = ATTACKS,
    batch_size: int = 256,
    seed: int = 0,
) -> Measured:
    """Measure accuracies and membership shares of one model on `sets`, which holds forget, retain and test.

    The result for a retrained model can be passed to `classification_figures` repeatedly.
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


def held_out_figures(forget: Predictions, test: Predictions) -> dict[str, Metric]:
    """Compare the forget samples with samples of the same classes that no model was trained on.

    A model that never saw the forget samples knows them no better than those: its two accuracies are alike, and its
    two losses. The test samples are weighted so that each class counts as often as among the forget samples.

    Returns:
        forget_loss and holdout_loss (mean cross-entropy in nats), and holdout_accuracy (a share), whose `samples` is
        the number of equally weighted samples with as wide an interval, (Σw)² / Σw² (Kish 1965). The latter two are
        missing where a class of the forget samples is not among the test samples.
    """
    library, loss = version_of("torch"), "mean cross-entropy in nats, of the {}; less is known better"
    own = nn.functional.cross_entropy(forget.logits.double(), forget.labels).item()
    found = {"forget_loss": Metric(own, loss.format("forget set"), len(forget.labels), library)}
    classes = forget.logits.shape[1]
    wanted, there = (p.labels.bincount(minlength=classes).double() for p in (forget, test))
    if ((there == 0) & (wanted > 0)).any():
        return found
    weights = (wanted / there.clamp(min=1))[test.labels]
    weights = weights / weights.sum()
    of = "test samples, which were never trained on, each class as often as among the forget samples"
    correct = (test.logits.argmax(1) == test.labels).double()
    losses = nn.functional.cross_entropy(test.logits.double(), test.labels, reduction="none")
    count = round(1 / weights.square().sum().item())
    held_out = (weights * losses).sum().item(), (weights * correct).sum().clamp(0, 1).item()
    found["holdout_loss"] = Metric(held_out[0], loss.format(of), count, library)
    found["holdout_accuracy"] = Metric(held_out[1], f"share of {of}, that are classified as labelled", count, library)
    return found


def classification_figures(
    model: Any,
    forget: SizedDataset,
    retain: SizedDataset,
    test: SizedDataset | None,
    retrained: Any = None,
    attacks: Sequence[tuple[str, str]] = ATTACKS,
    batch_size: int = 256,
    seed: int = 0,
) -> dict[str, Metric]:
    """Compute the metrics of the classification tables.

    Args:
        model: a classifier, or what `measure` returned for it with the same sets, attacks and seed.
        forget, retain, test: the three sets, with evaluation transforms.
        retrained: the model trained without the forget set, or what `measure` returned for it with the same sets,
            attacks and seed.
        attacks: (feature, attack) pairs for `membership_share`.

    Returns:
        forget_accuracy, retain_accuracy, test_accuracy and mia_<feature>_<attack>, which are shares from 0 to 1. With
        `retrained` also kl_to_retrained and js_to_retrained (nats, on the forget set) and average_gap (percentage
        points, over the three accuracies and the first attack, as in the papers; left out where there is no attack).

    Raises:
        ValueError: there is no test set, an attack is unknown, the retrained model has other classes, or what
            `predictions` raises.
    """
    if test is None:
        raise ValueError("no test set: pass samples that no model was trained on, the attacks compare with them")
    for feature, attack in attacks:
        check_attack(feature, attack)
    given = isinstance(retrained, Measured)
    sets = {"forget": forget, "retain": retain, "test": test}
    ours = model if isinstance(model, Measured) else None
    classes = ours.predictions["forget"].logits.shape[1] if ours else model.config.num_labels
    if not (retrained is None or given) and retrained.config.num_labels != classes:
        raise ValueError(
            f"the retrained model has {retrained.config.num_labels} classes and the model {classes}: "
            "retrain with the same label set"
        )
    ours = ours or measure(model, sets, attacks, batch_size, seed)
    if retrained is None:
        return ours.figures
    theirs = retrained if given else measure(retrained, sets, attacks, batch_size, seed)
    compared = _comparison(ours.predictions["forget"], theirs.predictions["forget"], ours.figures, theirs.figures)
    return {**ours.figures, **compared}


def _comparison(
    p: Predictions, reference: Predictions, figures: dict[str, Metric], retrained: dict[str, Metric]
) -> dict[str, Metric]:
    """Compare with the retrained model: divergences on the forget set, and the average gap of the first four metrics.

    Those are the three accuracies and the first attack.
    """
    names = list(figures)[:4]
    found = {"kl_to_retrained": kl_divergence(p, reference), "js_to_retrained": js_divergence(p, reference)}
    found = {name: replace(m, definition=f"{m.definition}; on the forget set") for name, m in found.items()}
    if len(names) < 4:
        return found
    ours, theirs = ({n: 100 * source[n].number for n in names} for source in (figures, retrained))
    found["average_gap"] = Metric(
        average_gap(ours, theirs, names),
        f"mean |model - retrained| of {', '.join(names)}, in percentage points; 0 is as retrained",
        samples=len(p.labels),
        library=figures[names[-1]].library,
        details={f"retrained_{name}": metric.value for name, metric in retrained.items()},
    )
    return found
