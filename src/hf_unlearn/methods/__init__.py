"""Methods by name. A literal table: it also parametrises the tests and the scripts' --method."""

from .bad_teacher import BadTeacher
from .base import Loop, Method
from .boundary_shrink import BoundaryShrink
from .fine_tune import FineTune
from .gradient_ascent import GradientAscent
from .l1_sparse import L1Sparse
from .lur import LUR
from .neg_grad_plus import NegGradPlus
from .random_label import RandomLabel
from .salun import SalUn
from .scrub import SCRUB
from .sfron import SFRon
from .ssd import SSD

METHODS: dict[str, type[Method]] = {
    "sfron": SFRon,
    "finetune": FineTune,
    "gradient_ascent": GradientAscent,
    "neg_grad_plus": NegGradPlus,
    "random_label": RandomLabel,
    "salun": SalUn,
    "scrub": SCRUB,
    "bad_teacher": BadTeacher,
    "l1_sparse": L1Sparse,
    "boundary_shrink": BoundaryShrink,
    "ssd": SSD,
    "lur": LUR,
}

__all__ = [
    "LUR",
    "METHODS",
    "SCRUB",
    "SSD",
    "BadTeacher",
    "BoundaryShrink",
    "FineTune",
    "GradientAscent",
    "L1Sparse",
    "Loop",
    "Method",
    "NegGradPlus",
    "RandomLabel",
    "SFRon",
    "SalUn",
]
