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

from hf_unlearn import UnlearnConfig, UnlearnTrainer, cli
from hf_unlearn.class_names import class_ids
from hf_unlearn.classifiers import ProcessedImages, check_same_build, load_image_classifier, load_labelled_images
from hf_unlearn.data import random_subset, split_by_index, split_by_label
from hf_unlearn.evaluation.classifier_rows import classifier_figures, evaluation_sets, write_classifier_figures
from hf_unlearn.evaluation.metric import Metric
from hf_unlearn.evaluation.record import record_run
from hf_unlearn.hub import finish
from hf_unlearn.objectives import Classification
from hf_unlearn.recipes import build_classifier, digits_splits, train_classifier
from hf_unlearn.sources import held_out_split, split_names

DEFAULT_STEPS = 400  # in which the default ViT learns all of its training images


@dataclass
class ClassifierConfig(UnlearnConfig):
    """UnlearnConfig with a default for classifiers."""

    learning_rate: float = field(
        default=1e-4, metadata={"help": "1e-4 suits some samples of every class; a whole class takes more, 5e-4"}
    )


@dataclass
class ModelFlags:
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "image classifier: folder or Hub id; default a ViT trained on the digits"}
    )
    model_revision: str | None = field(default=None, metadata={"help": "Hub revision of the model"})
    retrained_model: str | None = field(
        default=None, metadata={"help": "folder of a model trained without the forget data, to compare with"}
    )


@dataclass
class DataFlags:
    dataset_name: str | None = field(default=None, metadata={"help": "Hub id of the training images"})
    dataset_config_name: str | None = field(default=None, metadata={"help": "configuration of that data set"})
    train_dir: str | None = field(default=None, metadata={"help": "folder a class, or parquet files"})
    validation_dir: str | None = field(default=None, metadata={"help": "as train_dir, images never trained on"})
    image_column_name: str = field(default="image", metadata={"help": "column of the images"})
    label_column_name: str = field(default="label", metadata={"help": "column of the labels"})
    max_train_samples: int | None = field(default=None, metadata={"help": "at most this many, spread evenly"})
    max_eval_samples: int | None = field(default=None, metadata={"help": "as max_train_samples, of the test images"})
    forget_class: list[str] | None = field(
        default=None, metadata={"help": "classes to forget: names or ids; may be repeated"}
    )
    forget_fraction: float | None = field(
        default=None, metadata={"help": "forget a random share of the training images, drawn by --seed"}
    )
    forget_indices: str | None = field(
        default=None, metadata={"help": "file of positions in the training images, one a line"}
    )
    skip_unreadable_images: bool = field(default=False, metadata={"help": "leave broken images out and name them"})
    eval_batch_size: int = field(default=256, metadata={"help": "of the figures; the images are measured three times"})
    dry_run: bool = field(default=False, metadata={"help": "print the whole resolved configuration and stop"})

    def __post_init__(self):
        for name in ("max_train_samples", "max_eval_samples", "eval_batch_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("train_dir", "validation_dir"):
            if getattr(self, name) is not None and not Path(getattr(self, name)).is_dir():
                raise ValueError(f"{name} {getattr(self, name)} is not a folder")
        given = [n for n in ("forget_class", "forget_fraction", "forget_indices") if getattr(self, n) is not None]
        if len(given) > 1 or (not given and (self.train_dir or self.dataset_name)):
            raise ValueError("say what to forget with one of --forget_class, --forget_fraction or --forget_indices")
        if self.train_dir and self.dataset_name:
            raise ValueError("give the training images by --train_dir or by --dataset_name, not both")

    def sources(self, test: Dataset | None) -> dict[str, str]:
        """Where the data come from."""
        trained = self.train_dir or self.dataset_name or "scikit-learn digits"
        held_out = {"test": self.validation_dir or trained} if test is not None else {}
        return {"forget": trained, "retain": trained, **held_out}


def load_data(data: DataFlags, model: PreTrainedModel, processor: Any) -> tuple[Dataset, Dataset | None]:
    """(train, test) of the flags; test is None where there is none."""
    source = data.train_dir or data.dataset_name
    if source is None:
        raise ValueError("no data: set --train_dir or --dataset_name to the images the model was trained on")
    names = split_names(source, data.dataset_config_name)
    test, held_out = source, held_out_split(names)
    if data.validation_dir:
        names = split_names(data.validation_dir)
        test, held_out = data.validation_dir, held_out_split(names) or names[0]

    def load(where: str, part: str, most: int | None) -> ProcessedImages:
        images = load_labelled_images(
            *(where, model, processor, part, data.image_column_name, data.label_column_name),
            config_name=data.dataset_config_name if where == data.dataset_name else None,
            max_samples=most,
            skip_unreadable=data.skip_unreadable_images,
        )
        if images.skipped:
            print(f"{len(images.skipped)} unreadable images of {where} are left out: {', '.join(images.skipped)}")
        return images

    train = load(source, "train", data.max_train_samples)
    return train, None if held_out is None else load(test, held_out, data.max_eval_samples)


def read_indices(path: str) -> list[int]:
    """Positions from a file with one a line."""
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    wrong = [line for line in lines if not line.isdecimal()]
    if wrong:
        raise ValueError(f"{path} holds {wrong[0]!r}: write one position a line")
    return [int(line) for line in lines]


def split_train(data: DataFlags, train: Dataset, model: PreTrainedModel, seed: int) -> tuple[Subset, Subset]:
    """(forget, retain) parts of the training images."""
    if data.forget_class:
        return split_by_label(train, class_ids(data.forget_class, model.config))
    if data.forget_indices is None:
        fraction = 0.1 if data.forget_fraction is None else data.forget_fraction
        return split_by_index(train, random_subset(len(train), fraction, seed))
    chosen = read_indices(data.forget_indices)
    return split_by_index(train, train.places(chosen) if isinstance(train, ProcessedImages) else chosen)


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
        train, test = load_data(data, model, processor)
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
    path.write_text("".join(f"{positions[i]}\n" for i in forget.indices))


def main() -> None:
    flags, data, config, method = cli.parse(
        (ModelFlags, DataFlags, ClassifierConfig), description=__doc__.splitlines()[0]
    )
    if data.dry_run:
        print(cli.resolved((flags, data, plain(config), method)), end="")
        return
    if config.push_to_hub:
        raise ValueError(f"push_to_hub is not for this script: upload the result with `hf upload {config.output_dir}`")
    cli.check_writable(config.output_dir)
    model, retrained, processor, (train, test), (forget, retain) = load_models(flags, data, config.seed)
    if test is None:
        print("test accuracy and membership inference need images never trained on: pass --validation_dir")
    sets = evaluation_sets(forget, retain, test, bool(data.forget_class))

    def figures_of(measured: PreTrainedModel, reference: PreTrainedModel | None) -> dict[str, Metric]:
        return classifier_figures(measured, sets, reference, data.eval_batch_size, config.seed)

    if retrained is not None:
        retrained.to(config.device)
    words = forgotten_in_words(data, forget)
    trainer = UnlearnTrainer(Classification(model, processor), config, method, forget, retain, forgotten=words)
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
        words,
        {named.get(name, name): row for name, row in figures.items()},
        flags.model_name_or_path,
        flags.model_revision,
        data.sources(test),
        picture=None,
    )
    finish(config, None, record, table, trainer)


if __name__ == "__main__":
    cli.run(main)
