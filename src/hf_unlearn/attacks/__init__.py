"""Attacks: what brings a forgotten concept back, measured as a share of images or as steps of training."""

from .base import Attack as Attack
from .base import Found as Found
from .base import Reader as Reader
from .base import Subject as Subject
from .base import Suite as Suite
from .base import Target as Target
from .benign_relapse import BenignRelapse
from .class_embedding import ClassEmbedding as ClassEmbedding
from .class_guidance import ClassGuidance as ClassGuidance
from .class_null import ClassNull as ClassNull
from .class_relearning import ClassRelearning as ClassRelearning
from .class_trials import class_trial as class_trial
from .class_trials import classifier_trial as classifier_trial
from .classifier_membership import ClassifierIAM as ClassifierIAM
from .classifier_membership import ClassifierRMIA as ClassifierRMIA
from .classifier_relearning import ClassifierRelearning as ClassifierRelearning
from .classifier_residual import ClassifierResidual as ClassifierResidual
from .classifiers import classifier_target as classifier_target
from .completion import Completion
from .discrete import DiscretePrefix
from .inversion import Inversion
from .merge_back import MergeBack
from .noise_probe import NoiseProbe
from .quantised import Quantised
from .relearning import Relearning
from .ring_a_bell import RingABell
from .running import Trial as Trial
from .running import run_attacks as run_attacks
from .samplers import Samplers
from .soft_prefix import SoftPrefix
from .tina import Tina
from .weight_noise import WeightNoise
from .wordings import Wordings

# Attacks of each family, in the order in which they run.
TEXT_TO_IMAGE: tuple[Attack, ...] = (
    Wordings(),
    Samplers(),
    NoiseProbe(),
    Completion(),
    Inversion(),
    SoftPrefix(),
    Relearning(),
    Inversion(tokens=4),
    DiscretePrefix(),
    RingABell(),
    Relearning(weights="lora"),
    BenignRelapse(),
    MergeBack(),
    Quantised(bits=8),
    Quantised(bits=4),
    WeightNoise(),
    Tina(),
)
CLASSES: tuple[Attack, ...] = (ClassNull(), ClassGuidance(), ClassEmbedding(), ClassRelearning())
CLASSIFIERS: tuple[Attack, ...] = (ClassifierIAM(), ClassifierRMIA(), ClassifierResidual(), ClassifierRelearning())
# Images of each seed: 30 over two seeds are the fewest that say something (`evaluation.metric.FEWEST`).
SAMPLES: dict[Suite, int] = {"quick": 15, "full": 36}
ATTACKS = (*TEXT_TO_IMAGE, *CLASSES, *CLASSIFIERS)


def suite_of(family: str, suite: Suite = "quick") -> list[Attack]:
    """The attacks on models of a family, ready to run.

    Args:
        family: a name in `families.load`: text_to_image, ddpm, dit or classifier.
        suite: "full" is all of them as they are; "quick" the short ones, in few steps (`Attack.quick`), and of several
            forms of one attack only the first.
    """
    fitting = [attack for attack in ATTACKS if family in attack.families]
    if suite == "full":
        return fitting
    names = [attack.name for attack in fitting]
    first = [attack for place, attack in enumerate(fitting) if attack.name not in names[:place]]
    return [attack.quick() for attack in first if attack.suite == "quick"]
