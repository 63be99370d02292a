"""Objectives: one per model family, each in a folder of its own."""

from .base import Adapter, Baseline, Family, Objective, class_names
from .classifier.objective import Classification
from .ddpm.objective import NoisePrediction
from .dit.objective import DiTPrediction
from .load import CLASSIFIER, DDPM, DIT, FAMILIES, TEXT_TO_IMAGE, family_of, objective_for, prepare_family
from .noise import DDPMSchedule, FlowSchedule, NoiseSchedule
from .text_to_image.objective import Prompts, TextToImage, encode_prompts
from .text_to_image.pipelines import PIPELINES, denoiser_of, side_of, text_side
from .text_to_image.text_encoder import TextEncoderToImage, text_to_image_objective

__all__ = [
    "CLASSIFIER",
    "DDPM",
    "DIT",
    "FAMILIES",
    "PIPELINES",
    "TEXT_TO_IMAGE",
    "Adapter",
    "Baseline",
    "Classification",
    "DDPMSchedule",
    "DiTPrediction",
    "Family",
    "FlowSchedule",
    "NoisePrediction",
    "NoiseSchedule",
    "Objective",
    "Prompts",
    "TextEncoderToImage",
    "TextToImage",
    "class_names",
    "denoiser_of",
    "encode_prompts",
    "family_of",
    "objective_for",
    "prepare_family",
    "side_of",
    "text_side",
    "text_to_image_objective",
]
