"""Original, unlearned and retrained classifier side by side: what each is measured on, and the table."""

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, Subset

from ..data.pairs import labels_of
from .classification import accuracy, classification_figures, predictions
from .metric import Metric
from .tables import markdown_table, write_figures


def evaluation_sets(
    forget: Dataset, retain: Dataset, test: Dataset | None, forgotten_classes: bool
) -> dict[str, Dataset]:
    """forget and retain, and test if there is one.

    Where whole classes are forgotten, `test` holds the other classes only, and theirs is `forgotten_class_test`: a
    model that forgot them must fail there, which says nothing about what it retained.
    """
    sets = {"forget": forget, "retain": retain}
    if test is None or not forgotten_classes:
        return sets if test is None else {**sets, "test": test}
    forgotten = set(labels_of(forget))
    parts: tuple[list[int], list[int]] = ([], [])
    for i, label in enumerate(labels_of(test)):
        parts[label in forgotten].append(i)
    sets["test"] = Subset(test, parts[0])
    return {**sets, "forgotten_class_test": Subset(test, parts[1])} if parts[1] else sets


def classifier_figures(
    model: Any, sets: dict[str, Dataset], retrained: Any = None, batch_size: int = 256, seed: int = 0
) -> dict[str, Metric]:
    """The figures of `classification_figures` if `sets` has test data, and the accuracy on each other set."""
    figures: dict[str, Metric] = {}
    rest = sets
    if "test" in sets:
        parts = {name: sets[name] for name in ("forget", "retain", "test")}
        rest = {name: data for name, data in sets.items() if name not in parts}
        figures = classification_figures(model, **parts, retrained=retrained, batch_size=batch_size, seed=seed)
    accuracies = {f"{name}_accuracy": accuracy(predictions(model, data, batch_size)) for name, data in rest.items()}
    return {**figures, **accuracies}


def classifier_table(figures: dict[str, dict[str, Metric]]) -> str:
    """One row a model: accuracies and membership shares in %, distances to the retrained model as they are."""
    names = list(dict.fromkeys(name for row in figures.values() for name in row))

    def cell(name: str, metric: Metric | None) -> str:
        if metric is None:
            return "-"
        share = name.endswith("_accuracy") or name.startswith("mia_")
        return f"{metric.value:.1%}" if share else f"{metric.value:.3f}"

    rows = [[model, *(cell(name, row.get(name)) for name in names)] for model, row in figures.items()]
    return markdown_table(["model", *(name.replace("_", " ") for name in names)], rows)


def write_classifier_figures(figures: dict[str, dict[str, Metric]], folder: str | Path) -> str:
    """Write `figures.json` and `figures.md` to `folder`; returns the table."""
    table = classifier_table(figures)
    values = {model: {name: metric.as_dict() for name, metric in row.items()} for model, row in figures.items()}
    write_figures(folder, values, table)
    return table
