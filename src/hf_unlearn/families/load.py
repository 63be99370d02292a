"""A model of any family that the package knows, from a folder or Hub id."""

from pathlib import Path
from typing import Any

from ..common.untrusted import pipeline_index
from .classifier.load import load_image_classifier
from .pipelines import load_ddpm_pipeline, load_dit_pipeline, load_text_to_image_pipeline


def load_model(name_or_path: str, revision: str | None = None) -> tuple[Any, Any]:
    """(model, processor): a UNet2D, DiT or Stable Diffusion pipeline with None, or a transformers image classifier.

    Raises:
        ValueError: the folder does not exist, or holds something else.
        OSError: the Hub has no such model, or cannot be reached.
    """
    kind = pipeline_class(name_or_path, revision)
    if kind is None:
        return load_image_classifier(name_or_path, revision)
    if kind == "DiTPipeline":
        return load_dit_pipeline(name_or_path, revision=revision), None
    if kind.startswith("StableDiffusion"):
        return load_text_to_image_pipeline(name_or_path, revision=revision), None
    return load_ddpm_pipeline(name_or_path, revision=revision), None


def pipeline_class(name_or_path: str, revision: str | None = None) -> str | None:
    """The class that model_index.json names, or None where there is no such file: no diffusers pipeline."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    folder = Path(name_or_path)
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            return None
    else:
        try:
            hf_hub_download(name_or_path, "model_index.json", revision=revision)
        except (EntryNotFoundError, HFValidationError):
            return None
    return pipeline_index(name_or_path, revision=revision).get("_class_name", "")
