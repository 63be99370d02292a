"""Names and numbers of classes: in data, in a model's label map, and where the two must agree."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SAME_CLASSES = 0.99  # two lists with this share of equal names name the same classes, spelled differently


def class_ids(names: Sequence[str], config: "PreTrainedConfig") -> list[int]:
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


def label_ids(rows: Any, column: str, config: "PreTrainedConfig") -> list[int]:
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


def names_of(ids: Sequence[int], config: "PreTrainedConfig") -> list[str]:
    """Return the model's names of classes; the number of one that has only transformers' placeholder, LABEL_3."""
    names = _names(config)
    return [str(i) if names.get(i, f"LABEL_{i}") == f"LABEL_{i}" else names[i] for i in ids]


def names_by_number(config: "PreTrainedConfig") -> dict[int, str]:
    """Return the names of all classes of a model by number, as `names_of` gives them."""
    ids = range(config.num_labels or 0)
    return dict(zip(ids, names_of(ids, config), strict=True))


def stored_names(rows: Any, column: str | None) -> dict[int, str]:
    """Return the class names of a data set by number, those of a ClassLabel column; none where it has only numbers."""
    import datasets

    kind = (rows.features or {}).get(column) if column else None
    return dict(enumerate(kind.names)) if isinstance(kind, datasets.ClassLabel) else {}


def class_numbers(values: Sequence[str | int], names: Mapping[int, str]) -> list[int]:
    """Return the number of each class, which is said by its name in the data or by its number; a name goes first.

    Raises:
        ValueError: a class is not among `names`, or there are none and it is no number.
    """
    numbers = {name: number for number, name in names.items()}
    found = []
    for value in values:
        said = str(value)
        if said not in numbers and (not said.isdecimal() or (names and int(said) not in names)):
            has = _listed(names) if names else "numbered classes without names"
            raise ValueError(f"class {said} is not in the data, which has {has}")
        found.append(numbers[said] if said in numbers else int(said))
    return found


def in_words(number: int, names: Mapping[int, str]) -> str:
    """Return a class as a person reads it: "dog (number 1)", or the number alone where that is its name too."""
    name = names.get(number, str(number))
    return name if name == str(number) else f"{name} (number {number})"


def model_numbers(names: Mapping[int, str], model: Mapping[str, int], what: str) -> dict[int, int]:
    """Return the model's number of each class of the data.

    Where the model names none of the data's classes, its numbers are taken to be the data's: folders in their sorted
    order.

    Args:
        names: of the data, by number. model: the model's numbers, by name.
        what: the model, in words.

    Raises:
        ValueError: the model names some of the classes, but not all.
    """
    known = [name for name in names.values() if name in model]
    if not known:
        return {number: number for number in names}
    lost = [name for name in names.values() if name not in model]
    if lost:
        raise ValueError(f"class {lost[0]!r} of the data is not in {what}, which has {known[0]!r}: name it as there")
    return {number: model[name] for number, name in names.items()}


def check_same_numbers(names: Mapping[int, str], config: "PreTrainedConfig", what: str) -> None:
    """Raise ValueError if a classifier gives a class of the data another number than the data does."""
    label2id = {name: number for number, name in _names(config).items()}
    moved = [number for number, name in names.items() if label2id.get(name, number) != number]
    if moved:
        name = names[moved[0]]
        raise ValueError(
            f"class {name!r} has number {moved[0]} in the data, but {label2id[name]} in {what}: name a classifier "
            "with the data's class numbers, which are those of its sorted folders"
        )


def _listed(names: Mapping[int, str], shown: int = 12) -> str:
    said = [f"{name} ({number})" for number, name in list(names.items())[:shown]]
    return ", ".join(said) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _same_numbering(names: list[str], config: "PreTrainedConfig") -> bool:
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


def _names(config: "PreTrainedConfig") -> dict[int, str]:
    """Return the model's class names by id. transformers makes LABEL_0, LABEL_1, ... where there are none."""
    return {int(i): str(name) for i, name in (config.id2label or {}).items()}


def _label_map(config: "PreTrainedConfig") -> dict[str, int]:
    return {str(name): int(i) for name, i in (config.label2id or {}).items()}


def _known(config: "PreTrainedConfig") -> str:
    """List the model's first class names for a message."""
    label2id = _label_map(config)
    names = sorted(label2id, key=label2id.__getitem__)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
