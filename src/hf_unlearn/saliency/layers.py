"""Join the rows of a mask table, (name, weights, share), so that hundreds of parameters stay readable."""

from collections.abc import Callable, Iterable

Row = tuple[str, int, float]


def by_module(rows: Iterable[Row]) -> list[Row]:
    """Make one row of each module, with its weight and bias together. The share is that of all weights of the row."""
    return _joined(rows, lambda name: name.rpartition(".")[0] or name)


def by_prefix(rows: Iterable[Row], most: int = 24) -> list[Row]:
    """Make at most `most` rows: one a module, or one for each prefix of module names, as long as the limit allows.

    If there are more top-level names than that, the last row sums them up as "and N more".
    """
    modules = by_module(rows)
    for depth in range(max((name.count(".") + 1 for name, _, _ in modules), default=1), 0, -1):
        joined = _joined(modules, _prefix(depth))
        if len(joined) <= most:
            return joined
    rest = joined[most - 1 :]
    return [*joined[: most - 1], *_joined(rest, lambda name: f"and {len(rest)} more")]


def _prefix(parts: int) -> Callable[[str], str]:
    """Return a function that gives the first `parts` parts of a dotted name."""
    return lambda name: ".".join(name.split(".")[:parts])


def _joined(rows: Iterable[Row], key: Callable[[str], str]) -> list[Row]:
    """Join rows with the same key, in the order in which the keys appear."""
    sums: dict[str, list[float]] = {}
    for name, weights, share in rows:
        total = sums.setdefault(key(name), [0, 0.0])
        total[0] += weights
        total[1] += weights * share
    return [(name, int(weights), salient / weights if weights else 0.0) for name, (weights, salient) in sums.items()]
