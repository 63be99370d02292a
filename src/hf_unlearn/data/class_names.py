"""Look up class names in a model's label map."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig

SAME_CLASSES = 0.99  # two lists with this share of equal names name the same classes, spelled differently


def class_ids(names: Sequence[str], config: PreTrainedConfig) -> list[int]:
    """Return the class id of each name, which is a name in the model's label map or an id.

    Raises:
        ValueError: the model has no such class. The message lists the classes it has.
    """
    label2id, ids = _label_map(config), []
    for name in names:
        is_id = str(name).isdecimal() and int(name) < len(_names(config))
        if name not in label2id and not is_id:
            raise ValueError(f"class {name!r} is not in the model, which has {_known(config)}")
        ids.append(label2id[name] if name in label2id else int(name))
    return ids


def label_ids(rows: Any, column: str, config: PreTrainedConfig) -> list[int]:
    """Return the model's class id of each row of a `datasets.Dataset`.

    Names (strings, or those of a ClassLabel) are looked up in the model's label map, because a folder numbers its
    classes alphabetically, whatever the model's order is. Integers are ids. A ClassLabel's numbers are ids too where
    its names are the model's in the same order, or where the model has as many classes with the placeholder names
    LABEL_0, LABEL_1, ...

    Raises:
        ValueError: a name is not in the map, a row has no label, or the column holds no labels.
    """
    import datasets

    kind, values = rows.features[column], list(rows[column])
    missing = [i for i, value in enumerate(values) if value is None or value == -1]
    if missing:
        raise ValueError(f"{len(missing)} rows have no label in column {column!r}, the first at position {missing[0]}")
    if isinstance(kind, datasets.ClassLabel):
        if _same_numbering(kind.names, config):
            return values
        values = [kind.names[value] for value in values]
    elif not isinstance(kind, datasets.Value) or not kind.dtype.startswith(("int", "uint", "string")):
        raise ValueError(f"column {column!r} holds {kind}, not labels: name the label column")
    elif kind.dtype != "string":
        return values
    label2id = _label_map(config)
    unknown = sorted(set(values) - label2id.keys())
    if unknown:
        raise ValueError(f"label {unknown[0]!r} of the data is not in the model, which has {_known(config)}")
    return [label2id[value] for value in values]


def _same_numbering(names: list[str], config: PreTrainedConfig) -> bool:
    """Return whether class i of the data is class i of the model. ValueError if a model without names cannot tell."""
    theirs = _names(config)
    if all(name == f"LABEL_{i}" for i, name in theirs.items()):
        if len(names) != len(theirs):
            raise ValueError(
                f"the data has {len(names)} classes, the model {len(theirs)} without names: "
                "write id2label and label2id into its config.json"
            )
        return True
    agree = sum(theirs.get(i) == name for i, name in enumerate(names))
    return len(names) == len(theirs) and agree >= SAME_CLASSES * len(names)


def _names(config: PreTrainedConfig) -> dict[int, str]:
    """Return the model's class names by id. transformers makes LABEL_0, LABEL_1, ... where there are none."""
    return {int(i): str(name) for i, name in (config.id2label or {}).items()}


def _label_map(config: PreTrainedConfig) -> dict[str, int]:
    return {str(name): int(i) for name, i in (config.label2id or {}).items()}


def _known(config: PreTrainedConfig) -> str:
    """List the model's first class names for a message."""
    label2id = _label_map(config)
    names = sorted(label2id, key=label2id.__getitem__)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
