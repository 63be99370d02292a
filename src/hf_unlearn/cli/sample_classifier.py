"""The classifier that the flags name to recognise what a class-conditional model generates."""

from ..data.class_names import check_same_numbers, class_numbers
from ..data.protocols import SizedDataset
from ..evaluation.class_judge import ClassifierJudge, class_judge, drawn_classes
from .flags import ImageDataFlags
from .sample_flags import SampleFlags


def sample_classifier(
    flags: SampleFlags, data: ImageDataFlags, retain: SizedDataset, conditional: bool
) -> tuple[ClassifierJudge, list[int]] | None:
    """Return the classifier that the flags name and the classes that it reads; None if they name none.

    Raises:
        ValueError, OSError: the classifier numbers the classes otherwise, or what `SampleFlags.classifies`,
            `drawn_classes` and `class_judge` raise.
    """
    if flags.classifier_model_name_or_path is None or not flags.classifies(data, conditional):
        return None
    named = class_numbers(flags.eval_classes, data.class_names) if flags.eval_classes else None
    classes = drawn_classes(data.classes, retain, named)
    judge = class_judge(flags.classifier_model_name_or_path, flags.classifier_revision, classes)
    check_same_numbers(data.class_names, judge.model.config, flags.classifier_model_name_or_path)
    return judge, classes
