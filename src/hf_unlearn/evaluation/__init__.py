"""Finished models in; numbers and pictures out."""

from .class_judge import ClassifierJudge, class_judge, drawn_classes, judge_for, judged_pipelines
from .concepts import concept_picture, draw_prompts, strength_pictures
from .ddpm import (
    DIGITS_DDPM,
    RETRAINED,
    compare_pipelines,
    frozen_copy,
    picture,
    retrained_digits_ddpm,
    strength_picture,
)
from .generation import (
    GenerationFigures,
    SamplingConfig,
    class_rows,
    evaluate_classes,
    frechet_distance,
    judge_samples,
    sample_classes,
)
from .judge import DigitsJudge, digits_judge
from .record import RunRecord, read_record, record_run
from .report import (
    before_after,
    figures_table,
    interval,
    loss_metrics,
    losses_table,
    markdown_table,
    stamp,
    write_metrics,
)

__all__ = [
    "DIGITS_DDPM",
    "RETRAINED",
    "ClassifierJudge",
    "DigitsJudge",
    "GenerationFigures",
    "RunRecord",
    "SamplingConfig",
    "before_after",
    "class_judge",
    "class_rows",
    "compare_pipelines",
    "concept_picture",
    "digits_judge",
    "draw_prompts",
    "drawn_classes",
    "evaluate_classes",
    "figures_table",
    "frechet_distance",
    "frozen_copy",
    "interval",
    "judge_for",
    "judge_samples",
    "judged_pipelines",
    "loss_metrics",
    "losses_table",
    "markdown_table",
    "picture",
    "read_record",
    "record_run",
    "retrained_digits_ddpm",
    "sample_classes",
    "stamp",
    "strength_picture",
    "strength_pictures",
    "write_metrics",
]
