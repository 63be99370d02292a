"""The parts that a record's readers rely on, as data, and where a file differs from them (docs/report_schema.md)."""

from typing import Any

NUMBER = (int, float)
MAYBE = (int, float, type(None))
WORDS = (str, type(None))


class Values(dict):
    """A mapping of any names to values of one shape."""


PARTS: dict[str, Any] = {
    "base_model": {"name": WORDS, "on_hub": bool, "revision?": WORDS, "licence?": dict},
    "method": {"name": str, "options": dict, "paper?": WORDS},
    "training": {"outer_steps?": MAYBE},
    "data": Values(shape={"samples": MAYBE, "fingerprint": WORDS, "source": WORDS}),
    "figures": Values(
        shape=Values(
            shape={"value": MAYBE, "definition": str, "samples": int, "library?": str, "details?": dict},
        )
    ),
    "per_class": [{"name": str, "forget": bool, "before": MAYBE, "after": MAYBE, "retrained?": MAYBE}],
    "log": [{"step": NUMBER, "*": MAYBE}],
    "mask": {"density": MAYBE, "drift?": MAYBE, "layers": [(str, int, NUMBER)]},
    "cost": {"seconds?": MAYBE, "peak_memory_mb?": MAYBE, "device?": WORDS},
    "history": [{"method?": str}],
    "loads_with": [str],
    "adapter": {"rank": int, "scale": NUMBER, "merged": bool, "weights": int, "layers": [(str, int)]},
}


def problem(value: Any, shape: Any, where: str) -> str:
    """What is wrong with `value` and where, or "" for nothing.

    A shape is a type, a tuple of types for one value; {key: shape}, where a key that may be missing ends in "?" and
    "*" is every other key; `Values`; [shape] for a list; [(shape, ...)] for a list of rows.
    """
    if isinstance(shape, Values):
        return _container(value, dict, where) or _first(
            problem(v, shape["shape"], f"{where}.{k}") for k, v in value.items()
        )
    if isinstance(shape, dict):
        return _container(value, dict, where) or _first(_key(value, key, part, where) for key, part in shape.items())
    if isinstance(shape, list):
        (one,) = shape
        rows = isinstance(one, tuple)
        return _container(value, list, where) or _first(
            (_row if rows else problem)(item, one, f"{where}[{i}]") for i, item in enumerate(value)
        )
    allowed = shape if isinstance(shape, tuple) else (shape,)
    fits = isinstance(value, allowed) and (not isinstance(value, bool) or bool in allowed)
    if fits and isinstance(value, float) and not abs(value) < float("inf"):
        return f"{where} is {value}, which is no finite number"
    return "" if fits else f"{where} is a {type(value).__name__}"


def _key(value: dict[str, Any], key: str, shape: Any, where: str) -> str:
    if key == "*":
        return _first(problem(part, shape, f"{where}.{name}") for name, part in value.items())
    name = key.removesuffix("?")
    if name not in value:
        return "" if key.endswith("?") else f"{where}.{name} is missing"
    return problem(value[name], shape, f"{where}.{name}")


def _row(value: Any, shapes: tuple, where: str) -> str:
    if not isinstance(value, list) or len(value) != len(shapes):
        return f"{where} is no row of {len(shapes)}"
    return _first(problem(item, shape, f"{where}[{i}]") for i, (item, shape) in enumerate(zip(value, shapes)))


def _container(value: Any, kind: type, where: str) -> str:
    return "" if isinstance(value, kind) else f"{where} is a {type(value).__name__}"


def _first(said: Any) -> str:
    return next(filter(None, said), "")
