"""The rows of a comparison: references, and methods with their preset and what a row fixes besides."""

from typing import Any

from ..methods import METHODS, Method

# Retrained once more from other first weights: its gap is what chance alone makes.
AGAIN = "retrained, other start"
REFERENCES = ("original", "retrained", AGAIN)
# What a row fixes besides its preset: ascent that stops at a share of the loss of pure chance, log(classes).
FIXED: dict[str, dict[str, Any]] = {"sfron": {"bound": "other", "retain_loss": "data"}}


def method_of(row: str, options: dict[str, Any]) -> Method:
    """Build the Method of a row: its preset, then what the row fixes, then `options`.

    Raises:
        ValueError: there is no such method or preset.
    """
    name, _, preset = row.partition(":")
    if name not in METHODS:
        raise ValueError(f"method {name!r} is not one of {', '.join(METHODS)}")
    method = METHODS[name]
    if preset and preset not in method.presets:
        raise ValueError(f"method {name} has no preset {preset!r}: {', '.join(method.presets) or 'it has none'}")
    chosen = {"preset": preset, **method.presets[preset]} if preset else {}
    return method(**{**chosen, **FIXED.get(row, {}), **options})
