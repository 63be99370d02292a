"""Finished models in; numbers and pictures out."""

from .concepts import concept_picture, draw_prompts
from .ddpm import DIGITS_DDPM, RETRAINED, compare_pipelines, frozen_copy, picture, retrained_digits_ddpm
from .generation import (
    GenerationFigures,
    SamplingConfig,
    evaluate_classes,
    frechet_distance,
    judge_samples,
    sample_classes,
)
from .judge import DigitsJudge, digits_judge
from .report import before_after, figures_table, interval, losses_table, markdown_table, stamp

__all__ = [
    "DIGITS_DDPM",
    "RETRAINED",
    "DigitsJudge",
    "GenerationFigures",
    "SamplingConfig",
    "before_after",
    "compare_pipelines",
    "concept_picture",
    "digits_judge",
    "draw_prompts",
    "evaluate_classes",
    "figures_table",
    "frechet_distance",
    "frozen_copy",
    "interval",
    "judge_samples",
    "losses_table",
    "markdown_table",
    "picture",
    "retrained_digits_ddpm",
    "sample_classes",
    "stamp",
]
