"""hf-unlearn classify: make an image classifier forget a class or some training images.

    hf-unlearn classify                 # a small ViT forgets 10 % of the digits it learnt
    hf-unlearn classify --forget_class 3
    hf-unlearn classify --pretrained_model_name_or_path my-vit --train_data_dir photos/train \\
        --validation_data_dir photos/val --forget_class cat --retrained_model my-vit-without-cats
    hf-unlearn classify --forget_class 3 --augment_with my-ddpm   # retain variants of what is slow to learn, too
"""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, ClassVar

from ...common.limits import EXTENSION
from ...training.config import CLASSIFIER_RATE, UnlearnConfig
from ..augment_flags import AugmentFlags
from ..classifier_flags import ClassifierDataFlags
from ..flags import LoraFlags, TrainingFlags, flag

KINDS = ("classifier",)
BASIC = (
    *("pretrained_model_name_or_path", "train_data_dir", "validation_data_dir", "forget_class", "forget_fraction"),
    *("forget_indices", "retrained_model", "method", "preset", "output_dir", "max_train_steps"),
    *("train_batch_size", "learning_rate", "seed", "use_lora", "mixed_precision", "push_to_hub"),
)
EPILOG = "Every other field of transformers' TrainingArguments is a flag as well, such as --use_cpu or --data_seed."


@dataclass
class ModelFlags:
    pretrained_model_name_or_path: str | None = flag(
        None,
        "Image classifier: folder or Hub id; the default is a ViT that is first trained on the digits.",
        "model_name_or_path",
    )
    revision: str | None = flag(None, "Hub revision of the model.", "model_revision")
    variant: str | None = flag(None, "Variant of the weight files, such as fp16.")
    retrained_model: str | None = flag(None, "Folder of a model trained without the forget data, to compare with.")


@dataclass
class DataFlags(AugmentFlags, ClassifierDataFlags):
    eval_batch_size: int = flag(256, "Batch size of the evaluation, which goes through the images three times.")

    def __post_init__(self):
        super().__post_init__()
        self.check_augmentation()
        if self.eval_batch_size < 1:
            raise ValueError(f"eval_batch_size must be at least 1, got {self.eval_batch_size}")

    def sources(self, test: Any) -> dict[str, str]:
        """Where the data come from."""
        trained = self.train_data_dir or self.dataset_name or "scikit-learn digits"
        held_out = {"test": self.validation_data_dir or trained} if test is not None else {}
        drawn = {"variants": self.augment_with} if self.augment_with else {}
        return {"forget": trained, "retain": trained, **held_out, **drawn}


@dataclass
class ClassifierFlags(TrainingFlags):
    own_rate: ClassVar[float] = CLASSIFIER_RATE
    extension: ClassVar[int] = EXTENSION


def _other_arguments() -> type:
    """Return a dataclass of the fields of UnlearnConfig that ClassifierFlags has under no name."""
    flags = dataclasses.fields(ClassifierFlags)
    taken = {f.name for f in flags} | {a.lstrip("-") for f in flags for a in f.metadata.get("aliases", ())}
    kinds = typing.get_type_hints(UnlearnConfig)
    fields: list[tuple[str, Any, Any]] = []
    for own in dataclasses.fields(UnlearnConfig):
        if own.init and own.name not in taken:
            given: dict[str, Any] = {
                "default": own.default,
                "default_factory": own.default_factory,
                "metadata": own.metadata,
            }
            fields.append((own.name, kinds[own.name], dataclasses.field(**given)))
    return dataclasses.make_dataclass("OtherArguments", fields)


OtherArguments = _other_arguments()
HIDDEN = (OtherArguments,)


def flag_classes() -> tuple[type, ...]:
    """The dataclasses of the command's flags, in the order in which `parse` returns them."""
    return ModelFlags, DataFlags, LoraFlags, ClassifierFlags


def given_arguments(others: Any) -> dict[str, Any]:
    """Return what was set among the other fields of UnlearnConfig."""
    defaults = OtherArguments()
    values = {f.name: getattr(others, f.name) for f in dataclasses.fields(others)}
    return {name: value for name, value in values.items() if value != getattr(defaults, name)}


def classify_command(argv: list[str]) -> None:
    """hf-unlearn classify"""
    from ..parsing import parse

    text = "Make an image classifier forget a class or some training images, and save what plain transformers loads."
    known: dict[str, Any] = {"kinds": KINDS, "basic": BASIC, "hidden": HIDDEN, "epilog": EPILOG}
    parts = parse(flag_classes(), argv, text, prog="hf-unlearn classify", **known)
    from ..runs.classify import ClassifierRun
    from ..runs.skeleton import execute

    others = given_arguments(parts[4])
    execute(ClassifierRun([*parts[:4], others, parts[5]], others), "classify", argv)
