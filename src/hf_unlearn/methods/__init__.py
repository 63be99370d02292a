"""Methods by name. A literal table: it also parametrises the tests and the scripts' --method."""

from .base import Loop, Method
from .fine_tune import FineTune
from .gradient_ascent import GradientAscent
from .neg_grad_plus import NegGradPlus
from .sfron import SFRon

METHODS: dict[str, type[Method]] = {
    "sfron": SFRon,
    "finetune": FineTune,
    "gradient_ascent": GradientAscent,
    "neg_grad_plus": NegGradPlus,
}

__all__ = ["METHODS", "FineTune", "GradientAscent", "Loop", "Method", "NegGradPlus", "SFRon"]
