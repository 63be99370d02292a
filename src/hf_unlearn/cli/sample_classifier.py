"""The classifier that the flags name to recognise what a class-conditional model generates."""

from ..data.protocols import SizedDataset
from ..evaluation.class_judge import ClassifierJudge, class_judge, drawn_classes
from .flags import ImageDataFlags, SampleFlags


def sample_classifier(
    flags: SampleFlags, data: ImageDataFlags, retain: SizedDataset, conditional: bool
) -> tuple[ClassifierJudge, list[int]] | None:
    """Return the classifier that the flags name and the classes that it reads; None if they name none.

    Raises:
        ValueError, OSError: what `SampleFlags.classifies`, `drawn_classes` and `class_judge` raise.
    """
    if flags.classifier_model_name_or_path is None or not flags.classifies(data, conditional):
        return None
    classes = drawn_classes(data.forget_class or [], retain, flags.eval_classes)
    return class_judge(flags.classifier_model_name_or_path, flags.classifier_revision, classes), classes
