"""Methods by name. A literal table: it also parametrises the tests and the scripts' --method."""

from .bad_teacher import BadTeacher
from .base import Loop, Method
from .boundary_shrink import BoundaryShrink
from .concept_ablation import ConceptAblation
from .esd import ESD
from .fine_tune import FineTune
from .gradient_ascent import GradientAscent
from .l1_sparse import L1Sparse
from .lur import LUR
from .neg_grad_plus import NegGradPlus
from .random_label import RandomLabel
from .salun import SalUn
from .scrub import SCRUB
from .selective_amnesia import SelectiveAmnesia
from .sfron import SFRon
from .ssd import SSD
from .uce import UCE

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
    "esd": ESD,
    "concept_ablation": ConceptAblation,
    "selective_amnesia": SelectiveAmnesia,
    "uce": UCE,
}

__all__ = [
    "ESD",
    "LUR",
    "METHODS",
    "SCRUB",
    "SSD",
    "UCE",
    "BadTeacher",
    "BoundaryShrink",
    "ConceptAblation",
    "FineTune",
    "GradientAscent",
    "L1Sparse",
    "Loop",
    "Method",
    "NegGradPlus",
    "RandomLabel",
    "SFRon",
    "SalUn",
    "SelectiveAmnesia",
]
