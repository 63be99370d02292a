"""The likelihood-ratio attack on every method of a comparison, with a few shadow models."""

from concurrent.futures import Executor
from typing import Any

import torch

from ..evaluation.classification import predictions
from ..evaluation.membership import scaled_confidence
from ..evaluation.shadow import ulira
from ..evaluation.tables import markdown_table
from .cells import Cells, unlearn
from .models import forget_and_retain
from .pool import collect


def shadow_scores(cells: Cells, row: str, shadow: int, options: dict[str, Any]) -> list[float]:
    """Scaled confidences of the first seed's forget set under one shadow model of a row; empty if it diverged.

    Shadow k is trained from seed 5000 + k: on all data and then unlearned, or for the row "retrained" without the
    forget set.
    """
    recipe, seed = cells.recipe, cells.recipe.seeds[0]
    forget, retain = forget_and_retain(recipe, seed)
    kind = "retrained" if row == "retrained" else "original"
    model, _ = cells.trained(kind, 5000 + shadow, forget_seed=seed)
    if row not in ("original", "retrained"):
        model, _, diverged = unlearn(recipe, model, row, options, forget, retain, 5000 + shadow)
        if diverged:
            return []
    outputs = predictions(model, forget)
    return scaled_confidence(outputs.logits, outputs.labels).tolist()


def attack_table(pool: Executor, cells: Cells, options: dict[str, dict], progress: bool) -> str:
    """Table of how well the attack tells each row's shadow models from retrained ones; 0.5 is chance."""
    recipe = cells.recipe
    rows = ["original", "retrained", *recipe.methods]
    count = range(recipe.shadows)
    # The row "retrained" compares two disjoint halves of the retrained shadows, which differ by chance alone.
    wanted = {(row, k) for row in rows if row != "retrained" for k in count}
    wanted |= {("retrained", k) for k in range(2 * recipe.shadows)}
    running = {pool.submit(shadow_scores, cells, row, k, options[row]): (row, k) for row, k in sorted(wanted)}
    scores = collect(running, "shadows", progress)
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
