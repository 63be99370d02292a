"""Methods by name. A literal table, which parametrises the tests and --method; installed packages add to it."""

from .bad_teacher import BadTeacher
from .base import Batch, EditMethod, Losses, Method, OptimizerSpec, Step, flag
from .boundary_shrink import BoundaryShrink
from .clu import CLU
from .concept_ablation import ConceptAblation
from .esd import ESD
from .fine_tune import FineTune
from .gradient_ascent import GradientAscent
from .l1_sparse import L1Sparse
from .lur import LUR
from .munba import MUNBa
from .neg_grad_plus import NegGradPlus
from .random_label import RandomLabel
from .registry import Registry
from .salun import SalUn
from .scrub import SCRUB
from .selective_amnesia import SelectiveAmnesia
from .sfron import SFRon
from .ssd import SSD
from .uce import UCE

_BUILT_IN: dict[str, type[Method]] = {
    "sfron": SFRon,
    "clu": CLU,
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
    "munba": MUNBa,
    "esd": ESD,
    "concept_ablation": ConceptAblation,
    "selective_amnesia": SelectiveAmnesia,
    "uce": UCE,
}
METHODS = Registry(_BUILT_IN)

__all__ = [
    "CLU",
    "ESD",
    "LUR",
    "METHODS",
    "SCRUB",
    "SSD",
    "UCE",
    "BadTeacher",
    "Batch",
    "BoundaryShrink",
    "ConceptAblation",
    "EditMethod",
    "FineTune",
    "GradientAscent",
    "L1Sparse",
    "Losses",
    "MUNBa",
    "Method",
    "NegGradPlus",
    "OptimizerSpec",
    "RandomLabel",
    "Registry",
    "SFRon",
    "SalUn",
    "SelectiveAmnesia",
    "Step",
    "flag",
]
