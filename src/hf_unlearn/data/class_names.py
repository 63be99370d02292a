"""From the names of classes to the ids of a model's label map."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig

SAME_CLASSES = 0.99  # share of equal names from which two lists name the same classes, spellings apart


def class_ids(names: Sequence[str], config: PreTrainedConfig) -> list[int]:
    """Class ids of `names`, each a name in the model's label map or else an id. ValueError lists what there is."""
    ids = []
    for name in names:
        is_id = str(name).isdecimal() and int(name) < config.num_labels
        if name not in config.label2id and not is_id:
            raise ValueError(f"class {name!r} is not in the model, which has {_known(config)}")
        ids.append(config.label2id[name] if name in config.label2id else int(name))
    return ids


def label_ids(rows: Any, column: str, config: PreTrainedConfig) -> list[int]:
    """The model's class id of each row of a `datasets.Dataset`.

    Names (strings, or a ClassLabel's) are looked up in the model's label map, because a folder numbers its classes
    alphabetically whatever the model does. Integers are ids. So are a ClassLabel's numbers where its names are the
    model's in the model's order, or where the model has no names but LABEL_0, LABEL_1, ... and as many classes.

    Raises:
        ValueError: a name that is not in the map, a row without a label, or a column of something else.
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
    unknown = sorted(set(values) - config.label2id.keys())
    if unknown:
        raise ValueError(f"label {unknown[0]!r} of the data is not in the model, which has {_known(config)}")
    return [config.label2id[value] for value in values]


def _same_numbering(names: list[str], config: PreTrainedConfig) -> bool:
    """Whether class i of the data is class i of the model; a ValueError if a model without names cannot tell."""
    if all(name == f"LABEL_{i}" for i, name in config.id2label.items()):
        if len(names) != config.num_labels:
            raise ValueError(
                f"the data has {len(names)} classes, the model {config.num_labels} without names: "
                "write id2label and label2id into its config.json"
            )
        return True
    agree = sum(config.id2label.get(i) == name for i, name in enumerate(names))
    return len(names) == config.num_labels and agree >= SAME_CLASSES * len(names)


def _known(config: PreTrainedConfig) -> str:
    names = sorted(config.label2id, key=config.label2id.get)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
