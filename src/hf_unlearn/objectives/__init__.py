"""Objectives: one per model family."""

from typing import Any

from transformers import PreTrainedModel

from .base import Baseline, Objective
from .classification import Classification
from .denoising import NoisePrediction

__all__ = ["Baseline", "Classification", "NoisePrediction", "Objective", "objective_for"]


def objective_for(model: Any) -> Objective:
    """The objective of a pipeline around a UNet2DModel or of a transformers image classifier; an Objective itself."""
    if isinstance(model, Objective):
        return model
    return Classification(model) if isinstance(model, PreTrainedModel) else NoisePrediction(model)
