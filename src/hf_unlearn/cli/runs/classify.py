"""A run on an image classifier."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Subset

from ...common.files import write_text
from ...data.class_names import class_ids, names_of
from ...data.pairs import halves, labels_of
from ...data.protocols import SizedDataset
from ...evaluation.classifier_rows import classifier_figures, evaluation_sets, unjudged, write_classifier_figures
from ...evaluation.membership import can_attack
from ...evaluation.metric import Metric
from ...families import Classification
from ...families.classifier.inputs import plain_processor
from ...families.classifier.load import ProcessedImages, check_same_build, load_image_classifier
from ...training import recipes
from ...training.config import UnlearnConfig
from ...training.trainer import UnlearnTrainer
from ..attacks.flags import UNSEEN, Known
from ..classifier_flags import held_out_images, processor_of, split_train, train_images, unretained
from ..plan import sketch
from .augmented import PROBED, augmented, explained
from .skeleton import Run

DEFAULT_STEPS = 400  # in which the default ViT learns all of its training images
TRAINING, RETRAINING = "training the original", "training without the forget images"


class ClassifierRun(Run):
    """A small ViT trained on the digits where no model is named: then the table has a retrained model too.

    Args:
        others: Fields of UnlearnConfig that the flags do not have and that were given.
    """

    def __init__(self, parts: Sequence[Any], others: dict[str, Any]):
        super().__init__(parts)
        self.model, self.data, self.lora, self.training, _, self.method = parts
        self.base_model, self.revision = self.model.pretrained_model_name_or_path, self.model.revision
        self.others, self.picture = others, None
        self.arguments: UnlearnConfig | None = None
        self.retrained: Any = None
        self.processor: Any = None
        self.original: Any = None
        self.train: Any = None
        self.test: Any = None
        self.measured: dict[str, dict[str, Metric]] = {}
        self.sets_measured: dict[str, SizedDataset] = {}

    @property
    def forgotten(self) -> str:
        if not self.data.forget_class:
            return f"{len(self.forget)} training images"
        config = self.pipeline.config
        return f"class {', '.join(names_of(class_ids(self.data.forget_class, config), config))}"

    @property
    def forgets(self) -> str:
        return "class" if self.data.forget_class else "samples"

    @property
    def sources(self) -> dict[str, str]:
        return self.data.sources(self.test)

    @property
    def hub_revision(self) -> str | None:
        return self.others.get("hub_revision")

    @property
    def has_masks(self) -> bool:
        found = self.method.finds_strength and self.config().find_strength
        said = getattr(self.method, "use_mask", True) is not None or getattr(self.method, "forget_loss", "") != "auto"
        known = self.base_model is None or self.data.forget_class or self.data.validation_data_dir
        return super().has_masks and not (found and known and not said)  # as if never seen, which has none

    def outlined(self) -> nn.Module | str:
        if self.base_model is not None:
            return super().outlined()
        return sketch(recipes.build_classifier("digits_vit", self.training.seed))

    def check(self) -> None:
        data = self.data
        if self.base_model is None and data.image_mean:
            raise ValueError(
                "--image_mean and --image_std are for a model without a processor: name it, or leave them out"
            )
        if self.base_model is None and (data.train_data_dir or data.dataset_name or data.validation_data_dir):
            raise ValueError("no model: set --pretrained_model_name_or_path to the classifier trained on these images")

    def begin(self) -> None:
        self.arguments = self.training.config(**self.others)

    def digest(self) -> str | None:
        return None if self.base_model is None else super().digest()

    def known(self) -> Known:
        retrained = [] if self.retrained is None else [self.retrained]
        return replace(super().known(), original=self.original, retrained=retrained, data=(self.forget, self.test))

    def config(self) -> UnlearnConfig:
        return self.arguments or self.training.config(**self.others)

    def load(self) -> None:
        if self.base_model is None:
            self.pipeline = recipes.build_classifier("digits_vit", self.training.seed)
            self.processor = plain_processor(self.pipeline.config, [0.5], [0.5])  # as the digits are stored
        else:
            self.pipeline, found = load_image_classifier(self.base_model, self.revision, self.model.variant)
            self.processor = processor_of(self.data, self.pipeline, found, self.base_model)
        self.objective = Classification(self.pipeline, self.processor)
        named = self.model.retrained_model
        if named:
            self.retrained, _ = load_image_classifier(named)
            check_same_build(self.pipeline, self.retrained, f"retrained_model {named}")

    def sets(self) -> None:
        """Everything that can be wrong is found first, before the default models are trained."""
        model, seed = self.pipeline, self.training.seed
        if self.base_model is None:
            parts = recipes.digits_splits(seed)
            self.train, self.test, self.holdout = parts["train"], parts["test"], parts["validation"]
        else:
            self.train = train_images(self.data, model, self.processor)
            self.test = held_out_images(self.data, model, self.processor)
            self._hold_out()
        self.forget, self.retain = split_train(self.data, self.train, model, seed)
        self.method.sized(len(self.forget), len(self.retain))
        if self.data.forget_class and self.forgotten != f"class {', '.join(self.data.forget_class)}":
            print(f"to forget: {self.forgotten}")
        gone = class_ids(self.data.forget_class or [], model.config)
        if nothing_holds := unretained(labels_of(self.retain), model.config, gone):
            print(nothing_holds)
        if self.base_model is None:
            if self.retrained is None:
                self.retrained = recipes.build_classifier("digits_vit", seed)
                recipes.train_classifier(self.retrained, self.retain, seed, what=RETRAINING, max_steps=DEFAULT_STEPS)
            recipes.train_classifier(model, self.train, seed, what=TRAINING, max_steps=DEFAULT_STEPS)
        if self.test is not None and not can_attack():
            print("not measured: membership inference and the average gap, install hf-unlearn[eval]")
        by_class = bool(self.data.forget_class)
        self.sets_measured = evaluation_sets(self.forget, self.retain, self.test, by_class)
        if lacks := unjudged(self.sets_measured, by_class):
            print(lacks)
        if self.data.augment_with:
            self._augment()
        if self.training.attack != "none":
            if self.test is None:
                raise ValueError(UNSEEN)
            if self.base_model is None:  # nothing else keeps it
                self.original = copy.deepcopy(model)
        if self.retrained is not None:
            self.retrained.to(self.config().device)

    def _augment(self) -> None:
        """Retain variants of slow-learnt images too; measure on the images themselves, and on variants of the
        forgotten ones."""
        folder = Path(self.training.output_dir) / "variants"
        parts = (self.pipeline, self.processor, self.forget, self.retain)
        made = augmented(self.data, *parts, folder, self.training.seed, self.config().device)
        self.retain, self.eval_retain = made.retain, self.retain
        self.sets_measured[PROBED] = made.probes
        print(made.said)

    def _hold_out(self) -> None:
        """Set half of the held-out images aside, where they say how samples that are forgotten should look."""
        if (
            self.test is None
            or self.data.forget_class
            or not (self.method.finds_strength and self.config().find_strength)
        ):
            return
        self.holdout, self.test = halves(self.test)
        print(f"{len(self.holdout)} of the held-out images say what unseen samples look like; figures are of the rest")

    def measure(self, model: Any, reference: Any) -> dict[str, Metric]:
        """Return the metrics of a model, with distances to `reference` if there is one."""
        sizes = (self.data.eval_batch_size, self.training.seed)
        return explained(classifier_figures(model, self.sets_measured, reference, *sizes))

    def before(self, trainer: UnlearnTrainer) -> None:
        # Meets every unreadable image before a weight moves.
        self.measured["original"] = self.measure(self.pipeline, self.retrained)

    def evaluate(self, trainer: UnlearnTrainer) -> tuple[str, dict[str, Any], Sequence[dict[str, Any]]]:
        self.measured["unlearned"] = self.measure(self.pipeline, self.retrained)
        if self.retrained is not None:
            self.measured["retrained"] = self.measure(self.retrained, None)
        folder = Path(self.training.output_dir)
        write_indices(folder / "forget_indices.txt", self.train, self.forget)
        table = write_classifier_figures(self.measured, folder)
        named = {"original": "before", "unlearned": "after"}
        return table, {named.get(name, name): row for name, row in self.measured.items()}, []


def write_indices(path: Path, train: SizedDataset, forget: Subset) -> None:
    """Write the positions of the forget samples, as --forget_indices reads them."""
    positions = train.positions if isinstance(train, ProcessedImages) else range(len(train))  # type: ignore[arg-type]
    write_text(path, "".join(f"{positions[i]}\n" for i in forget.indices))
