"""Targeted synthetic augmentation: slow-learnt samples and variants of them, as in TADA (arXiv 2505.21574)."""

from .drawing import redraw
from .generators import Generator, Variation, generator_of
from .slow import Slow, elbow, find_slow_learnt
from .variants import Variants, augment

__all__ = [
    "Generator",
    "Slow",
    "Variants",
    "Variation",
    "augment",
    "elbow",
    "find_slow_learnt",
    "generator_of",
    "redraw",
]
