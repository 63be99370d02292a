"""What a model would be that never met what was forgotten: the history of requests without it, from other seeds."""

from collections.abc import Sequence as Listed
from typing import Any

import torch
from torch import Tensor

from ..evaluation.classification import Predictions, js_divergence
from .requests import Part, Request
from .tasks import Standing, Tasks

SEEDS = (1000, 2000)  # added to the seed of the run: two counterfactual models


def without_forgotten(tasks: Tasks, requests: Listed[Request], number: int, at_once: bool = False) -> list[Request]:
    """The first `number` requests as they would have been, had what is forgotten after them never been learnt.

    Args:
        at_once: learn all that is known in the end by one request: enough where only the end counts.
    """
    standing = Standing(tasks)
    changes = []
    for request in requests[:number]:
        changes.append((request, standing.change(request)))
        standing = standing.after(request)
    if at_once:
        return [Request(learn=_part(tasks, standing.known))] if standing.known else []
    found = []
    for request, change in changes:
        learn, forget = change.learn - standing.forgotten, change.forget - standing.forgotten
        parts: dict[str, Any] = {
            name: _part(tasks, positions) for name, positions in (("learn", learn), ("forget", forget))
        }
        parts = {name: part for name, part in parts.items() if part is not None}
        if parts:
            found.append(Request(**parts, temporary=request.temporary and "learn" in parts))
    return found


def _part(tasks: Tasks, positions: frozenset[int]) -> Part | None:
    """Positions by whole tasks and classes where they are whole, else one by one."""
    left = set(positions)
    whole = []
    for number, classes in enumerate(tasks.classes):
        own = tasks.of_classes(classes)
        if own <= left:
            whole.append(number)
            left -= own
    rest = [label for label in sorted(tasks.task_of) if tasks.of_classes([label]) <= left]
    left -= tasks.of_classes(rest)
    return Part(tuple(whole), tuple(rest), tuple(left)) if positions else None


def divergences(ours: Predictions, others: Listed[Predictions]) -> dict[str, float]:
    """How far our model and counterfactual ones are apart on what was forgotten (CLPU, arXiv 2203.12817), in nats.

        AGJS = mean over counterfactual models c of JS(ours, c)
        IGJS = mean over pairs of counterfactual models of JS(c, c')

    with JS(p, q) = (KL(p | m) + KL(q | m)) / 2, m = (p + q) / 2, a mean over samples. Counterfactual models differ in
    their seeds alone: what is forgotten without a trace has AGJS = IGJS.

    Raises:
        ValueError: there are fewer than two counterfactual models.
    """
    if len(others) < 2:
        raise ValueError("a divergence of chance needs two counterfactual models")
    across = [js_divergence(ours, other).number for other in others]
    pairs = [(a, b) for i, a in enumerate(others) for b in others[i + 1 :]]
    inside = [js_divergence(a, b).number for a, b in pairs]
    return {"AGJS": sum(across) / len(across), "IGJS": sum(inside) / len(inside)}


def stored(found: Predictions) -> dict[str, Tensor]:
    """Predictions as tensors for a file."""
    return {"logits": found.logits.contiguous(), "labels": found.labels.contiguous()}


def restored(tensors: dict[str, Tensor]) -> Predictions:
    """What `stored` made of predictions."""
    return Predictions(tensors["logits"].float(), tensors["labels"].to(torch.int64))
