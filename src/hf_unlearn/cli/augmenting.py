"""What `hf-unlearn augment` does with its flags."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageClassification

from ..augmentation import Slow, Variants, Variation, augment, find_slow_learnt, generator_of
from ..augmentation.slow import check_classes
from ..augmentation.training import fit, train_early
from ..augmentation.variants import checked_strengths
from ..common.bars import phase
from ..common.devices import joined_state
from ..common.files import check_apart
from ..common.limits import SEEDS, check_limits
from ..common.losses import spread
from ..data.class_names import names_by_number
from ..data.joining import Joined
from ..data.pairs import labels_of, subset
from ..data.protocols import SizedDataset
from ..data.sources import held_out_split, split_names
from ..evaluation import DIGITS_DDPM
from ..evaluation.class_judge import ClassifierJudge
from ..evaluation.classification import accuracy, predictions
from ..evaluation.judge import digits_judge
from ..evaluation.metric import share_text
from ..families.classifier.load import load_image_classifier, load_labelled_images, need_processor
from ..families.load import load_model
from ..training.recipes import build_classifier, digits_splits

LIMITS = {
    **dict.fromkeys(("num_inference_steps", "width", "max_train_steps", "train_batch_size"), "[1, inf)"),
    **dict.fromkeys(("early_epochs", "sam", "learning_rate", "guidance_scale"), "[0, inf)"),
    "max_train_samples": "[1, inf)",
    "factor": "[2, inf)",
    "seed": SEEDS,
}


@dataclass
class Case:
    """What is augmented: a trained classifier with its images, and held-out ones, if there are any."""

    model: Any
    processor: Any
    images: SizedDataset
    test: SizedDataset | None
    judge: Any

    def fresh(self, seed: int) -> Any:
        """Return an untrained model of the same architecture and classes."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return AutoModelForImageClassification.from_config(self.model.config, trust_remote_code=False)


def run_augment(options: argparse.Namespace) -> None:
    """Find slow-learnt images, draw and write variants, and train on them where that is asked for."""
    check_limits(options, **LIMITS)
    checked_strengths(options.strength, options.new_images)
    if options.train == "continue" and not options.early_epochs:
        raise ValueError("--train continue goes on from the model at the elbow: set --early_epochs")
    if options.model_name_or_path and not options.early_epochs and options.judge is None:
        raise ValueError(
            "a classifier of a few epochs does not read slow-learnt images: set --judge to a trained one, or none"
        )
    phase("loading classifier and images")
    case = _case(options)
    check_classes(labels_of(case.images) or [], case.model)
    phase("loading the generator")
    named = options.generator or str(DIGITS_DDPM)
    how = Variation(options.num_inference_steps, options.guidance_scale, options.prompt, options.width)
    generator = generator_of(load_model(named)[0].to(joined_state().device), how, named)
    names = names_by_number(case.model.config)
    generator.conditions(names)  # or it says what does not fit, before anything is trained
    phase("training for a few epochs")
    early = _early(options, case)
    phase("finding slow-learnt images")
    slow = find_slow_learnt(early, case.images, options.by, options.share, options.seed)
    print(f"slow-learnt by {slow.rule}: {len(slow.positions)} of {len(case.images)} images ({slow.share:.0%})")
    values: dict[str, Any] = {"judge": case.judge, "names": names, "new_images": options.new_images}
    phase("drawing variants")
    made = augment(
        case.images, slow, generator, options.output_dir, options.factor, options.strength, seed=options.seed, **values
    )
    print(_said(made, case.judge is not None))
    if options.train != "none":
        _train(options, case, early, slow, made)


def _case(options: argparse.Namespace) -> Case:
    if options.model_name_or_path is None:
        if options.train_dir or options.generator:
            raise ValueError("no classifier: set --model_name_or_path to the one that these images are for")
        if not options.early_epochs:
            raise ValueError("the default classifier is not trained: set --early_epochs, or --model_name_or_path")
        parts = digits_splits()
        taken = options.max_train_samples or len(parts["train"])
        some = subset(parts["train"], spread(len(parts["train"]), taken))
        judge = None if options.judge == "none" else digits_judge()
        return Case(build_classifier("digits_vit", options.seed), None, some, parts["test"], judge)
    if not options.train_dir or not options.generator:
        raise ValueError("set --train_dir to the images and --generator to the pipeline that draws their classes")
    check_apart(options.output_dir, options.train_dir, "train_dir")
    model, processor = load_image_classifier(options.model_name_or_path)
    columns = (options.image_column, options.label_column)
    images = load_labelled_images(
        options.train_dir, model, processor, "train", *columns, max_samples=options.max_train_samples
    )
    held_out = held_out_split(split_names(options.train_dir))
    test = held_out and load_labelled_images(options.train_dir, model, processor, held_out, *columns)
    return Case(model, processor, images, test or None, _judge(options, model, processor))


def _judge(options: argparse.Namespace, model: Any, processor: Any) -> ClassifierJudge | None:
    """The classifier that is named, else the trained one; none where it is one of a few epochs."""
    if options.judge == "none":
        return None
    if options.judge is None:
        return ClassifierJudge(model, processor)
    judge, own = load_image_classifier(options.judge)
    need_processor(own, options.judge, "save its image processor beside it")
    if judge.config.num_labels != model.config.num_labels:
        raise ValueError(
            f"judge {options.judge} has {judge.config.num_labels} classes: name one with the classifier's"
        )
    return ClassifierJudge(judge, own, options.judge)


def _early(options: argparse.Namespace, case: Case) -> Any:
    """The classifier after a few epochs."""
    if not options.early_epochs:
        return case.model
    size = min(options.train_batch_size, len(case.images))
    values: dict[str, Any] = {"learning_rate": options.learning_rate, "per_device_train_batch_size": size}
    seed = options.seed
    early, epoch, errors = train_early(
        lambda: case.fresh(seed), case.images, options.early_epochs, seed, options.optim, **values
    )
    said = " ".join(f"{error:.1%}" for error in errors)
    print(f"the training error falls more slowly from epoch {epoch} of {options.early_epochs} on: {said}")
    return early


def _said(made: Variants, judged: bool) -> str:
    refused = sum(made.refused.values())
    total = sum(made.wanted.values())
    classes = ", ".join(f"{count} of {name}" for name, count in made.refused.items())
    lost = f"; {refused} of {total} refused, which the classifier reads as another class ({classes})" * bool(refused)
    unread = "" if judged else "; no classifier has read them"
    return f"{len(made.rows)} variants in {made.folder}, {made.drawn} drawn now{lost}{unread}"


def _train(options: argparse.Namespace, case: Case, early: Any, slow: Slow, made: Variants) -> None:
    """Train on everything, save the result and print its accuracy on images never trained on."""
    data = Joined(case.images, made.dataset(case.model, case.processor))
    model = early if options.train == "continue" else case.fresh(options.seed)
    folder = Path(options.output_dir) / "classifier"
    values: dict[str, Any] = {"learning_rate": options.learning_rate, "max_steps": options.max_train_steps}
    values["per_device_train_batch_size"] = min(options.train_batch_size, len(data))
    phase("training on images and variants")
    seconds = fit(model, data, options.seed, options.optim, options.sam, str(folder), **values)
    if case.processor is not None:
        case.processor.save_pretrained(folder)
    print(f"trained on {len(data)} images in {seconds:.0f} s: {folder}")
    if case.test is None:
        print("its accuracy needs images never trained on: put a test part beside the train part")
        return
    found = accuracy(predictions(model, case.test))
    print(f"accuracy on {found.samples} held-out images: {share_text(found.number, found.samples)}")
