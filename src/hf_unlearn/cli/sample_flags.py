"""Flags of the classifier that reads generated samples. Imports nothing heavy."""

from dataclasses import dataclass

from ..common.limits import check_limits
from .flags import ImageDataFlags, flag


@dataclass
class SampleFlags:
    """The classifier that recognises what a class-conditional model generates, before and after."""

    classifier_model_name_or_path: str | None = flag(
        None,
        "Image classifier with the model's class numbers, which counts the generated samples that it recognises: "
        "folder or Hub id.",
        "judge_model_name_or_path",
    )
    classifier_revision: str | None = flag(None, "Hub revision of that classifier.", "judge_revision")
    eval_classes: list[str] | None = flag(
        None, "Classes, by name or number, to generate beside the forgotten ones; the default is nine of the data."
    )
    eval_samples_per_class: int = flag(100, "Samples per class that are generated for the table; 0 skips it.")

    def __post_init__(self):
        check_limits(self, eval_samples_per_class="[0, inf)")
        if self.eval_classes and not self.classifier_model_name_or_path:
            raise ValueError("--eval_classes are read by a classifier: set --classifier_model_name_or_path")

    def classifies(self, data: ImageDataFlags, conditional: bool) -> bool:
        """Whether a classifier is named. Raises ValueError if there is nothing that it could read."""
        if self.classifier_model_name_or_path is None or not self.eval_samples_per_class:
            return False
        if not data.forget_class or not conditional or data.streaming:
            why = "a model with classes" if not conditional else "data without --streaming and --forget_class"
            raise ValueError(f"--classifier_model_name_or_path reads generated classes: it needs {why}")
        return True
