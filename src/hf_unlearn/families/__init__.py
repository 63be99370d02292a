"""Objectives: one per model family."""

from typing import Any

from transformers import PreTrainedModel

from .base import Adapter, Baseline, Objective
from .classifier.objective import Classification
from .ddpm.objective import NoisePrediction
from .dit.objective import DiTPrediction
from .text_to_image.objective import PIPELINES, Prompts, TextToImage, class_names, encode_prompts
from .text_to_image.text_encoder import TextEncoderToImage, text_to_image_objective

__all__ = [
    "PIPELINES",
    "Adapter",
    "Baseline",
    "Classification",
    "DiTPrediction",
    "NoisePrediction",
    "Objective",
    "Prompts",
    "TextEncoderToImage",
    "TextToImage",
    "class_names",
    "encode_prompts",
    "objective_for",
    "text_to_image_objective",
]


def objective_for(model: Any) -> Objective:
    """The objective of a UNet2D or DiT pipeline or of a transformers image classifier; an Objective itself.

    Raises:
        ValueError: a text-to-image pipeline, whose prompts only the caller knows.
    """
    if isinstance(model, Objective):
        return model
    kinds = class_names(model)
    if kinds & set(PIPELINES):
        raise ValueError("which prompts? Pass TextToImage(pipeline, encode_prompts(pipeline, [...]))")
    if isinstance(model, PreTrainedModel):
        return Classification(model)
    return DiTPrediction(model) if "DiTPipeline" in kinds else NoisePrediction(model)
