"""The families by the class of a model: the only place that asks which family something is."""

from pathlib import Path
from typing import Any

from ..common.untrusted import check_folder, loading, pipeline_index
from .base import Family, Objective
from .classifier.load import load_image_classifier
from .classifier.objective import Classification
from .ddpm.objective import NoisePrediction
from .ddpm.pipeline import load_ddpm_pipeline
from .dit.load import load_dit_pipeline
from .dit.objective import DiTPrediction
from .text_to_image.load import load_text_to_image_pipeline
from .text_to_image.pipelines import PIPELINES, listed
from .text_to_image.single_file import is_single_file


def _which_prompts(pipeline: Any) -> Objective:
    raise ValueError("which prompts? Pass TextToImage(pipeline, encode_prompts(pipeline, [...]))")


CLASSIFIER = Family(
    "classifier",
    "a transformers image classifier",
    load_image_classifier,
    Classification,
    classes=("PreTrainedModel",),
)
DDPM = Family(
    "ddpm",
    "a pipeline around a UNet2DModel",
    lambda name, revision: (load_ddpm_pipeline(name, revision=revision), None),
    NoisePrediction,
    classes=("ClassConditionalDDPMPipeline", "DDPMPipeline"),
    networks=("UNet2DModel",),
)
DIT = Family(
    "dit",
    "a DiTPipeline",
    lambda name, revision: (load_dit_pipeline(name, revision=revision), None),
    DiTPrediction,
    classes=("DiTPipeline",),
)
TEXT_TO_IMAGE = Family(
    "text_to_image",
    f"a {listed(PIPELINES)}",
    lambda name, revision: (load_text_to_image_pipeline(name, revision=revision), None),
    _which_prompts,
    classes=PIPELINES,
)
FAMILIES = (CLASSIFIER, DDPM, DIT, TEXT_TO_IMAGE)


def family_of(model: Any) -> Family | None:
    """The family of a pipeline or classifier; None for anything else, a bare UNet too."""
    return next((family for family in FAMILIES if family.holds(model)), None)


def prepare_family(model: Any) -> Family:
    """The family of a pipeline or classifier.

    Raises:
        ValueError: none that the package knows; it says what to give.
    """
    family = family_of(model)
    if family is None:
        known = ", ".join(family.given for family in FAMILIES)
        if isinstance(model, str | Path):
            raise ValueError(f"{str(model)!r} is a name: load what it names, and pass {known}, or an Objective")
        if hasattr(model, "merge_and_unload"):
            raise ValueError(
                f"the model is wrapped by peft ({type(model).__name__}): pass model.merge_and_unload() to train all "
                "weights, or model.unload() and have add_lora (--use_lora) make the adapter that is trained"
            )
        raise ValueError(f"{type(model).__name__} is not a model that can be unlearned: pass {known}, or an Objective")
    return family


def objective_for(model: Any) -> Objective:
    """The objective of a UNet2D or DiT pipeline or of a transformers image classifier; an Objective itself.

    Raises:
        ValueError: a text-to-image pipeline, whose prompts only the caller knows, or no model of a known family.
    """
    return model if isinstance(model, Objective) else prepare_family(model).objective(model)


def load_model(name_or_path: str, revision: str | None = None) -> tuple[Any, Any]:
    """(model, processor): a UNet2D, DiT or Stable Diffusion pipeline with None, or a transformers image classifier.

    A single file is a text-to-image pipeline, or none.

    Raises:
        ValueError: the folder does not exist, or holds something else.
        OSError: the Hub has no such model, or cannot be reached.
    """
    if is_single_file(name_or_path):
        return TEXT_TO_IMAGE.load(name_or_path, revision)
    kind = pipeline_class(name_or_path, revision)
    if kind is None:
        return CLASSIFIER.load(name_or_path, revision)
    # Pipelines around a UNet2DModel have many classes: that loader looks at the UNet and says what does not fit.
    family = next((family for family in FAMILIES if kind in family.classes), DDPM)
    return family.load(name_or_path, revision)


def pipeline_class(name_or_path: str, revision: str | None = None) -> str | None:
    """The class that model_index.json names, or None where there is no such file: no diffusers pipeline."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    folder = Path(name_or_path)
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            return None
    else:
        check_folder(name_or_path)
        try:
            with loading(name_or_path):
                hf_hub_download(name_or_path, "model_index.json", revision=revision)
        except (ValueError, OSError) as error:
            why = error.__cause__ or error
            if isinstance(why, EntryNotFoundError | HFValidationError) and not isinstance(
                why, LocalEntryNotFoundError
            ):
                return None
            raise
    return pipeline_index(name_or_path, weights=False, revision=revision).get("_class_name", "")
