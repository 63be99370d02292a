"""Rows of a mask table, (name, weights, share), joined so that hundreds of parameters stay readable."""

from collections.abc import Callable, Iterable

Row = tuple[str, int, float]


def by_module(rows: Iterable[Row]) -> list[Row]:
    """One row a module: its weight and bias together. The share is of all weights of the row."""
    return _joined(rows, lambda name: name.rpartition(".")[0] or name)


def by_prefix(rows: Iterable[Row], most: int = 24) -> list[Row]:
    """At most `most` rows: the modules, or as few leading parts of their names as it takes.

    Where even the first parts are more than that, the last rows are one, "and N more".
    """
    modules = by_module(rows)
    for depth in range(max((name.count(".") + 1 for name, _, _ in modules), default=1), 0, -1):
        joined = _joined(modules, lambda name, parts=depth: ".".join(name.split(".")[:parts]))
        if len(joined) <= most:
            return joined
    rest = joined[most - 1 :]
    return [*joined[: most - 1], *_joined(rest, lambda name: f"and {len(rest)} more")]


def _joined(rows: Iterable[Row], key: Callable[[str], str]) -> list[Row]:
    """Rows of one key together, in the order in which the keys appear."""
    sums: dict[str, list[float]] = {}
    for name, weights, share in rows:
        total = sums.setdefault(key(name), [0, 0.0])
        total[0] += weights
        total[1] += weights * share
    return [(name, int(weights), salient / weights if weights else 0.0) for name, (weights, salient) in sums.items()]
