"""The classifier that the flags name to read what a class-conditional model draws."""

from torch.utils.data import Dataset

from ..evaluation.class_judge import ClassifierJudge, class_judge, drawn_classes
from .flags import ImageDataFlags, JudgeFlags


def judge_for(
    flags: JudgeFlags, data: ImageDataFlags, retain: Dataset, conditional: bool
) -> tuple[ClassifierJudge, list[int]] | None:
    """The judge that the flags name and the classes that it reads; None if they name none.

    Raises:
        ValueError, OSError: what `JudgeFlags.judges`, `drawn_classes` and `class_judge` raise.
    """
    if not flags.judges(data, conditional):
        return None
    classes = drawn_classes(data.forget_class, retain, flags.eval_classes)
    return class_judge(flags.judge_model_name_or_path, flags.judge_revision, classes), classes
