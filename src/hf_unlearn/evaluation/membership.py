"""Membership inference: whether a model's outputs on forget samples still look like outputs on training data.

These population attacks compare with retained and with unseen samples of one model. `shadow` has the stronger attack.
All functions take logits (N, C) and labels (N,). Probabilities stay in log space, in float64.
"""

import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ..common.losses import log_odds
from .metric import Metric, version_of


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless logits are finite (N, C >= 2) and labels (N,) are integers in 0..C-1."""
    if logits.ndim != 2 or logits.shape[1] < 2 or len(logits) == 0:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)}: give (N, C) with N >= 1 samples and C >= 2 classes"
        )
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"labels have shape {tuple(labels.shape)}: give one per row of logits {tuple(logits.shape)}")
    if labels.is_floating_point() or not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise ValueError(f"labels must be integers in 0..{logits.shape[1] - 1}, the columns of the logits")
    if not logits.isfinite().all():
        raise ValueError("logits are not finite: the model has diverged, unlearn with a smaller learning rate")


def log_probabilities(logits: Tensor) -> Tensor:
    """Return log p (N, C) in float64."""
    return logits.double().log_softmax(1)


def _of_label(values: Tensor, labels: Tensor) -> Tensor:
    """Return values[i, labels[i]] (N,). (`values[:, labels]` would be N columns of every row.)"""
    return values.gather(1, labels.long()[:, None])[:, 0]


def _log_complement(log_p: Tensor) -> Tensor:
    """Return log(1 - p) (N, C), exact where p rounds to 1: there it is the log of the sum of the others."""
    top = log_p.argmax(1, keepdim=True)
    others = log_p.scatter(1, top, -math.inf).logsumexp(1, keepdim=True)
    # Only the largest probability can exceed 1/2; below that log1p loses nothing.
    return torch.log1p(-log_p.exp().scatter(1, top, 0.0)).scatter(1, top, others)


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the probability of the label, p_y (N,) in [0, 1], which is large for members."""
    check_logits(logits, labels)
    return _of_label(log_probabilities(logits), labels).exp()


def entropy(logits: Tensor) -> Tensor:
    """Return -Σ_j p_j log p_j (N,) in nats, from 0 to log C, which is small for members."""
    log_p = log_probabilities(logits)
    return -(log_p.exp() * log_p).sum(1)


def modified_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return -(1 - p_y) log p_y - Σ_{j≠y} p_j log(1 - p_j) (N,) in nats (Song & Mittal, arXiv 2003.10595).

    It is 0 only where the label has all the probability. The entropy is also 0 for confident mistakes.
    """
    check_logits(logits, labels)
    log_p = log_probabilities(logits)
    log_rest = _log_complement(log_p)
    wrong = -log_p.exp() * log_rest
    right = -_of_label(log_rest, labels).exp() * _of_label(log_p, labels)
    return wrong.scatter(1, labels.long()[:, None], 0.0).sum(1) + right


def scaled_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log(p_y / (1 - p_y)) (N,), which is nearly Gaussian over models (LiRA, arXiv 2112.03570).

    It is computed as z_y - log Σ_{j≠y} exp(z_j), which is finite where p_y rounds to 0 or 1.
    """
    check_logits(logits, labels)
    return log_odds(logits.double(), labels.long())


FEATURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "confidence": confidence,
    "entropy": lambda logits, labels: entropy(logits),
    "modified_entropy": modified_entropy,
}


def can_attack() -> bool:
    """Whether scikit-learn, whose classifiers are the attacks, is installed."""
    return find_spec("sklearn") is not None


def check_attack(feature: str, attack: str) -> None:
    """Raise ValueError, listing the choices, if one of the two names is unknown."""
    for kind, name, known in (("feature", feature, FEATURES), ("attack", attack, ("logistic", "svc"))):
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}: choose one of {', '.join(known)}")


def _attack_model(attack: str) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if attack == "logistic":
        return make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    return SVC(C=3, gamma="auto", kernel="rbf")


@torch.no_grad()
def membership_share(
    retain: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    forget: tuple[Tensor, Tensor],
    feature: str = "confidence",
    attack: str = "logistic",
    seed: int = 0,
    max_samples: int = 2000,
) -> Metric:
    """Return the share of forget samples (0 to 1) that an attack trained on retain against test takes for members.

    Papers differ in direction: SFR-on reports this share with ('entropy', 'logistic'), SalUn one minus it with
    ('confidence', 'svc'). The ideal value is not 0 but that of a retrained model.

    Args:
        retain, test, forget: (logits, labels) of the attacked model.
        feature: a name in FEATURES.
        attack: "logistic" (on the standardised feature) or "svc" (RBF, C=3, on the feature itself).
        seed: random seed of the draw, without replacement, of min(len(retain), len(test), max_samples) samples a side.

    Returns:
        The share, with the attack's balanced accuracy on its training data in details["attack_accuracy"]. Near 0.5
        the attack cannot tell members at all, and the share says nothing.

    Raises:
        ValueError: a name is unknown, or what `check_logits` raises.
    """
    check_attack(feature, attack)
    for logits, labels in (retain, test, forget):
        check_logits(logits, labels)
    count = min(len(retain[1]), len(test[1]), max_samples)
    generator = torch.Generator().manual_seed(seed)
    sides = [FEATURES[feature](*part).cpu() for part in (retain, test)]
    members, others = (side[torch.randperm(len(side), generator=generator)[:count]] for side in sides)
    inputs, member = torch.cat([members, others])[:, None].numpy(), [1] * count + [0] * count
    model = _attack_model(attack).fit(inputs, member)
    judged = model.predict(FEATURES[feature](*forget).cpu()[:, None].numpy())
    return Metric(
        value=float(judged.mean()),
        definition=f"share of forget samples judged members by {attack} on {feature}, retain=1 against test=0; "
        "good is the retrained model's share",
        samples=len(judged),
        library=version_of("scikit-learn", "torch"),
        details={"attack_accuracy": float(model.score(inputs, member)), "trained_on": 2 * count, "seed": seed},
    )
