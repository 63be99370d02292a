"""Compare the original, unlearned and retrained classifier: evaluation sets, metrics and table."""

from pathlib import Path
from typing import Any

from ..data.pairs import labels_of, subset
from ..data.protocols import SizedDataset
from .classification import ATTACKS, accuracy, classification_figures, held_out_figures, measure, predictions
from .membership import can_attack
from .metric import Metric, is_share, share_text
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

    With test data `held_out_figures` come too. Of a full class that is the forget loss alone, because the accuracy on
    `forgotten_class_test` says the rest. Without scikit-learn the membership shares and the average gap, which holds
    one of them, are left out.
    """
    figures: dict[str, Metric] = {}
    rest = sets
    if "test" in sets:
        three = {name: sets[name] for name in ("forget", "retain", "test")}
        rest = {name: data for name, data in sets.items() if name not in three}
        attacks = ATTACKS if can_attack() else ()
        ours = measure(model, three, attacks, batch_size, seed)
        options: dict[str, Any] = {**three, "retrained": retrained, "attacks": attacks}
        figures = classification_figures(ours, batch_size=batch_size, seed=seed, **options)
        figures |= held_out_figures(ours.predictions["forget"], ours.predictions["test"])
    accuracies = {f"{name}_accuracy": accuracy(predictions(model, data, batch_size)) for name, data in rest.items()}
    return {**figures, **accuracies}


def unjudged(sets: dict[str, SizedDataset], forgotten_classes: bool) -> str:
    """Return one line that says what cannot be judged because held-out data is missing, or ""."""
    if "test" not in sets:
        return (
            "test accuracy, membership inference and whether the forgotten images are known better than ones never "
            "seen need images never trained on: pass --validation_data_dir"
        )
    if forgotten_classes:
        lacks = "" if "forgotten_class_test" in sets else "the held-out images show no forgotten class"
    else:
        forgotten, held_out = labels_of(sets["forget"]), labels_of(sets["test"])
        lost = sorted(set(forgotten or []) - set(held_out or []))
        lacks = f"the held-out images show no class {lost[0]}, which forget images have" if lost else ""
    return f"{lacks}: whether the model still knows what it forgot is judged on its training images only" * bool(lacks)


def classifier_table(figures: dict[str, dict[str, Metric]]) -> str:
    """Format a row for each model: shares in % with their 95 % interval, everything else as a number."""
    names = list(dict.fromkeys(name for row in figures.values() for name in row))

    def cell(name: str, metric: Metric | None) -> str:
        if metric is None:
            return "-"
        return share_text(metric.number, metric.samples) if is_share(name) else f"{metric.number:.3f}"

    rows = [[model, *(cell(name, row.get(name)) for name in names)] for model, row in figures.items()]
    return markdown_table(["model", *(name.replace("_", " ") for name in names)], rows)


def write_classifier_figures(figures: dict[str, dict[str, Metric]], folder: str | Path) -> str:
    """Write `figures.json` and `figures.md` to `folder`. Return the table."""
    table = classifier_table(figures)
    values = {model: {name: metric.as_dict() for name, metric in row.items()} for model, row in figures.items()}
    write_figures(folder, values, table)
    return table
