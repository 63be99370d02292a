"""Objectives: one per model family."""

from .base import Baseline, Objective
from .denoising import NoisePrediction

__all__ = ["Baseline", "NoisePrediction", "Objective"]
