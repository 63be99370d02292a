"""Strategies by name."""

from typing import Any

from .continual import ContinualUnlearning
from .distillation import Distilling, Unified
from .private import PrivateNetworks
from .strategies import Replay, ReplayAscent, Retraining, Strategy, Unlearning

STRATEGIES: dict[str, type[Strategy]] = {
    strategy.name: strategy
    for strategy in (
        ContinualUnlearning,
        Unlearning,
        Retraining,
        Replay,
        ReplayAscent,
        PrivateNetworks,
        Distilling,
        Unified,
    )
}


def strategy_of(name: str, **options: Any) -> Strategy:
    """Make a strategy by its name.

    Raises:
        ValueError: there is no such strategy, or it has no such option.
    """
    if name not in STRATEGIES:
        raise ValueError(f"method {name!r} is not one of {', '.join(STRATEGIES)}")
    try:
        return STRATEGIES[name](**options)
    except TypeError as error:
        raise ValueError(f"method {name}: {error}") from None
