"""The rows of a comparison: references, and methods with their preset and the options that a row fixes.

A row is `method`, `method:preset`, `method:option=value,...` or `method:preset,option=value,...`. Without options it
is the method as shipped, except for those of `PUBLISHED`.
"""

from dataclasses import fields
from typing import Any, get_args, get_type_hints

from ..methods import METHODS, Method

# Retrained once more from other first weights: its gap is what chance alone makes.
AGAIN = "retrained, other start"
OTHER_START = 500  # is added to the seed of its first weights and the order of its data
FIRST_SHADOW = 5000  # seed of the first shadow or reference model; the others follow
REFERENCES = ("original", "retrained", AGAIN)
RATE = "learning_rate"  # an option of the trainer, not of the method
# What the papers do on classifiers and a comparison does too, unless a row says otherwise.
PUBLISHED: dict[str, dict[str, Any]] = {
    "random_label": {"proportional_passes": True},
    "salun": {"proportional_passes": True},
}


def parts_of(row: str) -> tuple[str, str, dict[str, Any]]:
    """(method, preset or "", options that the row fixes).

    Raises:
        ValueError: there is no such method, preset or option, or a value is of another kind.
    """
    name, _, rest = row.partition(":")
    if name not in METHODS:
        raise ValueError(f"method {name!r} is not one of {', '.join(METHODS)}")
    method, preset = METHODS[name], ""
    items = [item.strip() for item in rest.split(",") if item.strip()]
    if items and "=" not in items[0]:
        preset = items.pop(0)
        if preset not in method.presets:
            raise ValueError(f"method {name} has no preset {preset!r}: {', '.join(method.presets) or 'it has none'}")
    fixed = dict(PUBLISHED.get(name, {}))
    for item in items:
        option, _, text = item.partition("=")
        fixed[option] = _value(method, option, text, row)
    return name, preset, fixed


def fixed_of(row: str) -> dict[str, Any]:
    """The options that a row fixes besides its preset."""
    return parts_of(row)[2]


def method_of(row: str, options: dict[str, Any]) -> Method:
    """Build the Method of a row: its preset, then what the row fixes, then `options`; a learning rate is left out.

    Raises:
        ValueError: what `parts_of` raises, or the method refuses a value.
    """
    name, preset, fixed = parts_of(row)
    method = METHODS[name]
    chosen = {"preset": preset, **method.presets[preset]} if preset else {}
    return method(**{n: v for n, v in {**chosen, **fixed, **options}.items() if n != RATE})


def row_with(row: str, options: dict[str, Any]) -> str:
    """The row that fixes `options` too."""
    name, preset, fixed = parts_of(row)
    items = [preset] if preset else []
    items += [f"{option}={value}" for option, value in {**fixed, **options}.items()]
    return f"{name}:{','.join(items)}" if items else name


def _value(method: type[Method], option: str, text: str, row: str) -> Any:
    """Read the value of an option of a row."""
    known = [RATE, *(f.name for f in fields(method) if f.name != "preset")]
    if option not in known:
        raise ValueError(f"row {row!r}: {method.name} has no option {option!r}, only {', '.join(known)}")
    words: dict[str, Any] = {"true": True, "false": False, "none": None}
    value: Any = words.get(text.lower(), text)
    for kind in (float, int):
        try:
            value = kind(text)
        except ValueError:
            pass
    hint = float if option == RATE else get_type_hints(method)[option]
    kinds = [kind for kind in (get_args(hint) or (hint,)) if isinstance(kind, type)]
    fits = float in kinds and type(value) is int or type(value) in kinds
    if kinds and not fits:  # the words of a choice are checked by the method itself
        raise ValueError(f"row {row!r}: {option}={text} is a {type(value).__name__}")
    return value
