"""The likelihood-ratio attack on every method of a comparison, with a few shadow models."""

from concurrent.futures import Executor
from typing import Any

import torch

from ..evaluation.classification import predictions
from ..evaluation.membership import scaled_confidence
from ..evaluation.shadow import ulira
from ..evaluation.tables import markdown_table
from ..evaluation.vulnerable import LEAST_SHADOWS, most_vulnerable, vulnerable_ratio
from .cells import Cells, unlearn
from .models import forget_and_retain
from .pool import collect
from .rows import FIRST_SHADOW


def shadow_scores(cells: Cells, row: str, shadow: int, options: dict[str, Any]) -> list[float]:
    """Scaled confidences of the first seed's forget set under one shadow model of a row; empty if it diverged.

    Shadow k is trained from seed FIRST_SHADOW + k: on all data and then unlearned, or for the row "retrained" without
    the forget set.
    """
    recipe, seed = cells.recipe, cells.recipe.seeds[0]
    forget, retain = forget_and_retain(recipe, seed)
    kind = "retrained" if row == "retrained" else "original"
    model, _ = cells.trained(kind, FIRST_SHADOW + shadow, forget_seed=seed)
    if row not in ("original", "retrained"):
        model, _, diverged = unlearn(recipe, model, row, options, forget, retain, FIRST_SHADOW + shadow)
        if diverged:
            return []
    outputs = predictions(model, forget)
    return scaled_confidence(outputs.logits, outputs.labels).tolist()


def attack_table(pool: Executor, cells: Cells, options: dict[str, dict], progress: bool) -> str:
    """Table of how well the attack tells each row's shadow models from retrained ones; 0.5 is chance.

    From LEAST_SHADOWS on it says the same of the samples on which original and retrained models differ most.
    """
    recipe = cells.recipe
    rows = ["original", "retrained", *recipe.methods]
    count = range(recipe.shadows)
    # The row "retrained" compares two disjoint halves of the retrained shadows, which differ by chance alone.
    wanted = {(row, k) for row in rows if row != "retrained" for k in count}
    wanted |= {("retrained", k) for k in range(2 * recipe.shadows)}
    running = {pool.submit(shadow_scores, cells, row, k, options[row]): (row, k) for row, k in sorted(wanted)}
    scores = collect(running, "shadows", progress)
    retrained = torch.tensor([scores["retrained", k] for k in count])
    chosen = _vulnerable(scores, recipe.shadows)
    lines = []
    for row in rows:
        theirs = [scores[row, k + (recipe.shadows if row == "retrained" else 0)] for k in count]
        if not all(theirs):
            lines.append([row, "diverged", *([""] * (2 if chosen is None else 4))])
            continue
        lines.append([row, *_entries(torch.tensor(theirs), retrained, chosen)])
    titles = ["method", "accuracy", "AUC", "TPR at 1 % FPR"]
    said = ""
    if chosen is not None:
        titles += ["vulnerable: AUC", "vulnerable: TPR at 1 % FPR"]
        said = (
            f" The last columns are of the {len(chosen)} of {retrained.shape[1]} samples on which original and "
            "retrained models differ most, with 95 % intervals over models and samples."
        )
    return (
        f"\nLikelihood-ratio attack (U-LiRA form, {recipe.shadows} shadow models a side, the forget set of seed "
        f"{recipe.seeds[0]}); 0.5 is indistinguishable from retraining.{said}\n\n{markdown_table(titles, lines)}\n"
    )


def _vulnerable(scores: dict[Any, list[float]], shadows: int) -> torch.Tensor | None:
    """Positions of the samples that training shows most; None with too few models to say so.

    All retrained models are asked, those of both halves, so that the row "retrained" stays at chance.
    """
    if shadows < LEAST_SHADOWS:
        return None
    members = torch.tensor([scores["original", k] for k in range(shadows)])
    return most_vulnerable(members, torch.tensor([scores["retrained", k] for k in range(2 * shadows)]))


def _entries(theirs: torch.Tensor, retrained: torch.Tensor, chosen: torch.Tensor | None) -> list[str]:
    """The cells of one row; (S, N) scores of its models and of retrained ones."""
    metric = ulira(theirs, retrained)
    found = [f"{value:.3f}" for value in (metric.number, metric.details["auc"], metric.details["tpr_at_1_fpr"])]
    if chosen is None:
        return found
    part = vulnerable_ratio(theirs, retrained, chosen)
    ends = [(part.details["auc"], part.details["auc_interval"]), (part.number, part.details["interval"])]
    return [*found, *(f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, (low, high) in ends)]
