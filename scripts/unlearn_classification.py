"""Make an image classifier forget a class or some training images, measure it, and save what plain transformers loads.

    python scripts/unlearn_classification.py                    # a small ViT forgets 10 % of the digits it learnt
    python scripts/unlearn_classification.py --forget_class 3 --learning_rate 5e-4
    python scripts/unlearn_classification.py --model_name_or_path my-vit --train_dir photos/train \\
        --validation_dir photos/val --forget_class cat --retrained_model my-vit-without-cats
"""

import json
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, Subset
from transformers import PreTrainedModel

from hf_unlearn import UnlearnConfig, UnlearnTrainer
from hf_unlearn.cli import parsing as cli
from hf_unlearn.cli.classifier_flags import ClassifierDataFlags, held_out_images, split_train, train_images
from hf_unlearn.cli.finish import finish, prepare_repo
from hf_unlearn.cli.flags import LoraFlags, check_token_stays_local
from hf_unlearn.common.files import write_text
from hf_unlearn.evaluation.classifier_rows import classifier_figures, evaluation_sets, write_classifier_figures
from hf_unlearn.evaluation.metric import Metric
from hf_unlearn.families import Classification
from hf_unlearn.families.classifier.load import ProcessedImages, check_same_build, load_image_classifier
from hf_unlearn.report.recording import record_run
from hf_unlearn.training.recipes import build_classifier, digits_splits, train_classifier

DEFAULT_STEPS = 400  # in which the default ViT learns all of its training images


@dataclass(repr=False)
class ClassifierConfig(UnlearnConfig):
    """UnlearnConfig with a default for classifiers."""

    learning_rate: float = field(
        default=1e-4, metadata={"help": "1e-4 suits some samples of every class; a whole class takes more, 5e-4"}
    )

    def __post_init__(self):
        super().__post_init__()
        check_token_stays_local(self.hub_token, self.report_to)


@dataclass
class ModelFlags:
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "image classifier: folder or Hub id; default a ViT trained on the digits"}
    )
    model_revision: str | None = field(default=None, metadata={"help": "Hub revision of the model"})
    retrained_model: str | None = field(
        default=None, metadata={"help": "folder of a model trained without the forget data, to compare with"}
    )
    mask_path: str | None = field(default=None, metadata={"help": "weight masks to use instead of computing them"})


@dataclass
class DataFlags(ClassifierDataFlags):
    eval_batch_size: int = field(default=256, metadata={"help": "of the figures; the images are measured three times"})
    dry_run: bool = field(default=False, metadata={"help": "print the whole resolved configuration and stop"})

    def __post_init__(self):
        super().__post_init__()
        if self.eval_batch_size < 1:
            raise ValueError(f"eval_batch_size must be at least 1, got {self.eval_batch_size}")

    def sources(self, test: Dataset | None) -> dict[str, str]:
        """Where the data come from."""
        trained = self.train_dir or self.dataset_name or "scikit-learn digits"
        held_out = {"test": self.validation_dir or trained} if test is not None else {}
        return {"forget": trained, "retain": trained, **held_out}


def plain(config: UnlearnConfig) -> Any:
    """The training flags as a dataclass of what YAML holds and --config reads: no enums, nested settings as JSON."""
    values = config.to_dict()
    values = {f.name: values[f.name] for f in fields(config)}
    values = {name: json.dumps(v) if isinstance(v, dict) else v for name, v in values.items()}
    return make_dataclass("TrainingFlags", values)(**values)


def load_models(
    flags: ModelFlags, data: DataFlags, seed: int
) -> tuple[PreTrainedModel, PreTrainedModel | None, Any, tuple[Dataset, Dataset | None], tuple[Subset, Subset]]:
    """(original, retrained, processor, (train, test), (forget, retain)); everything that can be wrong is found first,
    before the default models are trained."""
    default = flags.model_name_or_path is None
    if default and (data.train_dir or data.dataset_name or data.validation_dir):
        raise ValueError("no model: set --model_name_or_path to the classifier trained on these images")
    if default:
        digits = digits_splits(seed)
        model, processor, train, test = build_classifier("digits_vit", seed), None, digits["train"], digits["test"]
    else:
        model, processor = load_image_classifier(flags.model_name_or_path, flags.model_revision)
        train, test = train_images(data, model, processor), held_out_images(data, model, processor)
    forget, retain = split_train(data, train, model, seed)
    retrained = None
    if flags.retrained_model:
        retrained, _ = load_image_classifier(flags.retrained_model)
        check_same_build(model, retrained, f"retrained_model {flags.retrained_model}")
    elif default:
        retrained = build_classifier("digits_vit", seed)
        train_classifier(retrained, retain, seed, max_steps=DEFAULT_STEPS)
    if default:
        train_classifier(model, train, seed, max_steps=DEFAULT_STEPS)
    return model, retrained, processor, (train, test), (forget, retain)


def forgotten_in_words(data: DataFlags, forget: Subset) -> str:
    return f"class {', '.join(data.forget_class)}" if data.forget_class else f"{len(forget)} training images"


def write_indices(path: Path, train: Dataset, forget: Subset) -> None:
    """The positions of the forget samples, as --forget_indices reads them."""
    positions = train.positions if isinstance(train, ProcessedImages) else range(len(train))
    write_text(path, "".join(f"{positions[i]}\n" for i in forget.indices))


def main() -> None:
    flags, data, lora, config, method = cli.parse(
        (ModelFlags, DataFlags, LoraFlags, ClassifierConfig), description=__doc__.splitlines()[0]
    )
    if data.dry_run:
        print(cli.resolved((flags, data, lora, plain(config), method)), end="")
        return
    cli.check_writable(config.output_dir)
    repo = prepare_repo(config, config.hub_revision)
    config.push_to_hub = False  # from here on it is ours: Trainer would make the repository again
    model, retrained, processor, (train, test), (forget, retain) = load_models(flags, data, config.seed)
    if test is None:
        print("test accuracy and membership inference need images never trained on: pass --validation_dir")
    sets = evaluation_sets(forget, retain, test, bool(data.forget_class))

    def figures_of(measured: PreTrainedModel, reference: PreTrainedModel | None) -> dict[str, Metric]:
        return classifier_figures(measured, sets, reference, data.eval_batch_size, config.seed)

    if retrained is not None:
        retrained.to(config.device)
    objective = Classification(model, processor)
    lora.apply(objective, forget, retain, config.seed)
    options = {"masks": flags.mask_path, "forgotten": forgotten_in_words(data, forget)}
    trainer = UnlearnTrainer(objective, config, method, forget, retain, **options)
    figures = {"original": figures_of(model, retrained)}  # meets every unreadable image before a weight moves
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    trainer.save_model()
    if not trainer.is_world_process_zero():
        return

    figures["unlearned"] = figures_of(model, retrained)
    if retrained is not None:
        figures["retrained"] = figures_of(retrained, None)
    folder = Path(config.output_dir)
    write_indices(folder / "forget_indices.txt", train, forget)
    table = write_classifier_figures(figures, folder)
    named = {"original": "before", "unlearned": "after"}
    record = record_run(
        trainer,
        trainer.forgotten,
        {named.get(name, name): row for name, row in figures.items()},
        flags.model_name_or_path,
        flags.model_revision,
        data.sources(test),
        picture=None,
    )
    finish(config, repo, record, table, trainer)


if __name__ == "__main__":
    cli.run(main)
