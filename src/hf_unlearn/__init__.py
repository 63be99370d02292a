"""Machine unlearning for Hugging Face models.

The public names are imported when they are first used: `import hf_unlearn` loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .augmentation import augment as augment
    from .augmentation import find_slow_learnt as find_slow_learnt
    from .augmentation import generator_of as generator_of
    from .common.errors import DivergenceError as DivergenceError
    from .data.images import digits as digits
    from .data.pairs import ForgetRetainDataset as ForgetRetainDataset
    from .data.pairs import split_by_index as split_by_index
    from .data.pairs import split_by_label as split_by_label
    from .data.sources import load_images as load_images
    from .evaluation import DIGITS_DDPM as DIGITS_DDPM
    from .families import Classification as Classification
    from .families import DiTPrediction as DiTPrediction
    from .families import NoisePrediction as NoisePrediction
    from .families import TextToImage as TextToImage
    from .families import encode_prompts as encode_prompts
    from .families.classifier.growing import grow_classes as grow_classes
    from .families.concepts import concept_of as concept_of
    from .families.ddpm.pipeline import ClassConditionalDDPMPipeline as ClassConditionalDDPMPipeline
    from .families.ddpm.pipeline import load_ddpm_pipeline as load_ddpm_pipeline
    from .families.synthesis import concept_data as concept_data
    from .methods import CLU as CLU
    from .methods import ESD as ESD
    from .methods import LUR as LUR
    from .methods import METHODS as METHODS
    from .methods import SCRUB as SCRUB
    from .methods import SSD as SSD
    from .methods import UCE as UCE
    from .methods import BadTeacher as BadTeacher
    from .methods import BoundaryShrink as BoundaryShrink
    from .methods import ConceptAblation as ConceptAblation
    from .methods import FineTune as FineTune
    from .methods import GradientAscent as GradientAscent
    from .methods import L1Sparse as L1Sparse
    from .methods import MUNBa as MUNBa
    from .methods import NegGradPlus as NegGradPlus
    from .methods import RandomLabel as RandomLabel
    from .methods import SalUn as SalUn
    from .methods import SelectiveAmnesia as SelectiveAmnesia
    from .methods import SFRon as SFRon
    from .saliency.fisher import fisher as fisher
    from .saliency.masks import Masks as Masks
    from .saliency.masks import density_masks as density_masks
    from .saliency.masks import load_masks as load_masks
    from .saliency.masks import ratio_masks as ratio_masks
    from .saliency.ranks import add_lora as add_lora
    from .saliency.ranks import find_salient_target_modules as find_salient_target_modules
    from .saving.adapters import load_adapter as load_adapter
    from .saving.adapters import remove_adapters as remove_adapters
    from .saving.adapters import set_strengths as set_strengths
    from .training.config import UnlearnConfig as UnlearnConfig
    from .training.trainer import UnlearnTrainer as UnlearnTrainer

__version__ = "0.2.0"

# The same names at run time, by the module that holds them; a test compares the two lists.
_EXPORTS = {
    "augmentation": ("augment", "find_slow_learnt", "generator_of"),
    "common.errors": ("DivergenceError",),
    "training.config": ("UnlearnConfig",),
    "data.pairs": ("ForgetRetainDataset", "split_by_index", "split_by_label"),
    "data.images": ("digits",),
    "data.sources": ("load_images",),
    "methods": (
        "METHODS",
        "ESD",
        "CLU",
        "LUR",
        "SCRUB",
        "SSD",
        "UCE",
        "BadTeacher",
        "BoundaryShrink",
        "ConceptAblation",
        "FineTune",
        "GradientAscent",
        "L1Sparse",
        "MUNBa",
        "NegGradPlus",
        "RandomLabel",
        "SFRon",
        "SalUn",
        "SelectiveAmnesia",
    ),
    "saliency.ranks": ("add_lora", "find_salient_target_modules"),
    "saving.adapters": ("load_adapter", "remove_adapters", "set_strengths"),
    "families": ("Classification", "DiTPrediction", "NoisePrediction", "TextToImage", "encode_prompts"),
    "families.classifier.growing": ("grow_classes",),
    "families.concepts": ("concept_of",),
    "families.ddpm.pipeline": ("ClassConditionalDDPMPipeline", "load_ddpm_pipeline"),
    "families.synthesis": ("concept_data",),
    "saliency.masks": ("Masks", "density_masks", "load_masks", "ratio_masks"),
    "saliency.fisher": ("fisher",),
    "training.trainer": ("UnlearnTrainer",),
    "evaluation": ("DIGITS_DDPM",),
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = ["__version__", *_HOMES]


if not TYPE_CHECKING:  # for a checker, which would take any name for public otherwise

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            module = import_module(f".{_HOMES[name]}", __name__)
        except ImportError as error:
            from .common.versions import VersionFault, version_fault

            raise VersionFault(f"hf_unlearn.{name} does not import: {version_fault(error)}") from error
        return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
