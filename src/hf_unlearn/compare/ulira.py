"""The likelihood-ratio attack on every method of a comparison, with a few shadow models."""

from concurrent.futures import Executor
from typing import Any

from ..evaluation.classification import predictions
from ..evaluation.membership import scaled_confidence
from ..evaluation.shadow import ulira
from ..evaluation.tables import markdown_table
from .cells import Cells, unlearn


def shadow_scores(cells: Cells, row: str, shadow: int, options: dict[str, Any]) -> list[float]:
    """Scaled confidences of one forget set (that of the first seed) under one shadow model of a row.

    Shadow k is trained from seed 5000 + k, on all data and then unlearned, or without the forget set ("retrained").
    """
    recipe, seed = cells.recipe, cells.recipe.seeds[0]
    forget, retain = cells.forget_and_retain(seed)
    kind = "retrained" if row == "retrained" else "original"
    model, _ = cells.trained(kind, 5000 + shadow, forget_seed=seed)
    if row not in ("original", "retrained"):
        model, _, diverged = unlearn(recipe, model, row, options, forget, retain, 5000 + shadow)
        if diverged:
            return []
    outputs = predictions(model, forget)
    return scaled_confidence(outputs.logits, outputs.labels).tolist()


def attack_table(pool: Executor, cells: Cells, options: dict[str, dict], progress: bool) -> str:
    """Markdown: how well the attack tells each row's shadow models from retrained ones (0.5 is not at all)."""
    import torch

    from . import _all

    recipe = cells.recipe
    rows = ["original", "retrained", *recipe.methods]
    count = range(recipe.shadows)
    # The retrained rows compare two disjoint halves of retrained shadows: what chance looks like here.
    wanted = {(row, k) for row in rows if row != "retrained" for k in count}
    wanted |= {("retrained", k) for k in range(2 * recipe.shadows)}
    running = {pool.submit(shadow_scores, cells, row, k, options[row]): (row, k) for row, k in sorted(wanted)}
    scores = _all(running, "shadows", progress)
    retrained = torch.tensor([scores["retrained", k] for k in count])
    lines = []
    for row in rows:
        theirs = [scores[row, k + (recipe.shadows if row == "retrained" else 0)] for k in count]
        if not all(theirs):
            lines.append([row, "diverged", "", ""])
            continue
        metric = ulira(torch.tensor(theirs), retrained)
        details = metric.details
        lines.append([row, f"{metric.value:.3f}", f"{details['auc']:.3f}", f"{details['tpr_at_1_fpr']:.3f}"])
    table = markdown_table(["method", "accuracy", "AUC", "TPR at 1 % FPR"], lines)
    return (
        f"\nLikelihood-ratio attack (U-LiRA form, {recipe.shadows} shadow models a side, the forget set of seed "
        f"{recipe.seeds[0]}); 0.5 is indistinguishable from retraining:\n\n{table}\n"
    )
