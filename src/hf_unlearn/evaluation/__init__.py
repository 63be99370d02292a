"""Measure finished models and samples: metrics, tables and picture grids."""

from .class_judge import ClassifierJudge, class_judge, drawn_classes, judged_pipelines
from .class_pictures import (
    DIGITS_DDPM,
    RETRAINED,
    compare_pipelines,
    frozen_copy,
    picture,
    retrained_digits_ddpm,
    strength_picture,
)
from .concept_pictures import concept_picture, draw_columns, strength_pictures
from .generation import (
    GenerationFigures,
    SamplingConfig,
    class_rows,
    evaluate_classes,
    frechet_distance,
    judge_samples,
    sample_classes,
)
from .grids import before_after
from .judge import DigitsJudge, digits_judge
from .tables import (
    figures_table,
    interval,
    loss_metrics,
    losses_table,
    markdown_table,
    share_of_runs,
    stamp,
    write_metrics,
)

__all__ = [
    "DIGITS_DDPM",
    "RETRAINED",
    "ClassifierJudge",
    "DigitsJudge",
    "GenerationFigures",
    "SamplingConfig",
    "before_after",
    "class_judge",
    "class_rows",
    "compare_pipelines",
    "concept_picture",
    "digits_judge",
    "draw_columns",
    "drawn_classes",
    "evaluate_classes",
    "figures_table",
    "frechet_distance",
    "frozen_copy",
    "interval",
    "judge_samples",
    "judged_pipelines",
    "loss_metrics",
    "losses_table",
    "markdown_table",
    "picture",
    "retrained_digits_ddpm",
    "sample_classes",
    "share_of_runs",
    "stamp",
    "strength_picture",
    "strength_pictures",
    "write_metrics",
]
