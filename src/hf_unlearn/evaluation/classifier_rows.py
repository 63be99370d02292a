"""Compare the original, unlearned and retrained classifier: evaluation sets, metrics and table."""

from pathlib import Path
from typing import Any

from ..data.pairs import labels_of, subset
from ..data.protocols import SizedDataset
from .classification import ATTACKS, accuracy, classification_figures, predictions
from .membership import can_attack
from .metric import Metric
from .tables import markdown_table, write_figures


def evaluation_sets(
    forget: SizedDataset, retain: SizedDataset, test: SizedDataset | None, forgotten_classes: bool
) -> dict[str, SizedDataset]:
    """Return the forget and retain sets, and the test set if there is one.

    Where full classes are forgotten, `test` holds only the other classes and `forgotten_class_test` holds theirs: a
    model that forgot them must fail there, which says nothing about what it retained.

    Raises:
        ValueError: full classes are forgotten and the data has no labels.
    """
    sets = {"forget": forget, "retain": retain}
    if test is None or not forgotten_classes:
        return sets if test is None else {**sets, "test": test}
    forgotten, labels = labels_of(forget), labels_of(test)
    if forgotten is None or labels is None:
        raise ValueError("the forget or test data has no labels, so its classes cannot be told apart")
    parts: tuple[list[int], list[int]] = ([], [])
    for i, label in enumerate(labels):
        parts[label in set(forgotten)].append(i)
    sets["test"] = subset(test, parts[0])
    return {**sets, "forgotten_class_test": subset(test, parts[1])} if parts[1] else sets


def classifier_figures(
    model: Any, sets: dict[str, SizedDataset], retrained: Any = None, batch_size: int = 256, seed: int = 0
) -> dict[str, Metric]:
    """Compute `classification_figures` if `sets` has test data, and the accuracy on each other set.

    Without scikit-learn the membership shares and the average gap, which holds one of them, are left out.
    """
    figures: dict[str, Metric] = {}
    rest = sets
    if "test" in sets:
        forget, retain, test = (sets[name] for name in ("forget", "retain", "test"))
        rest = {name: data for name, data in sets.items() if name not in ("forget", "retain", "test")}
        attacks = ATTACKS if can_attack() else ()
        figures = classification_figures(model, forget, retain, test, retrained, attacks, batch_size, seed)
    accuracies = {f"{name}_accuracy": accuracy(predictions(model, data, batch_size)) for name, data in rest.items()}
    return {**figures, **accuracies}


def classifier_table(figures: dict[str, dict[str, Metric]]) -> str:
    """Format a row for each model, with accuracies and membership shares in % and distances as numbers."""
    names = list(dict.fromkeys(name for row in figures.values() for name in row))

    def cell(name: str, metric: Metric | None) -> str:
        if metric is None:
            return "-"
        share = name.endswith("_accuracy") or name.startswith("mia_")
        return f"{metric.value:.1%}" if share else f"{metric.value:.3f}"

    rows = [[model, *(cell(name, row.get(name)) for name in names)] for model, row in figures.items()]
    return markdown_table(["model", *(name.replace("_", " ") for name in names)], rows)


def write_classifier_figures(figures: dict[str, dict[str, Metric]], folder: str | Path) -> str:
    """Write `figures.json` and `figures.md` to `folder`. Return the table."""
    table = classifier_table(figures)
    values = {model: {name: metric.as_dict() for name, metric in row.items()} for model, row in figures.items()}
    write_figures(folder, values, table)
    return table
