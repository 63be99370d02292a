"""The cells of a comparison: original, retrained and unlearned models and their figures, each computed once.

A cell is named by a hash of everything that it depends on: recipe, options, seed, data, the package's own source
and the versions of what it runs on. A changed input is another cell; a stale one is never read.
"""

import functools
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Subset
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel

from ..common.errors import DivergenceError
from ..common.files import write_text
from ..common.losses import spread
from ..common.untrusted import loading, read_json
from ..data.fingerprint import fingerprint
from ..data.images import ArrayDataset, FlippedAndCropped
from ..data.pairs import random_subset, split_by_index, split_by_label
from ..evaluation.classification import Measured, accuracy, classification_figures, measure, predictions
from ..evaluation.classifier_rows import evaluation_sets
from ..evaluation.metric import version_of
from ..evaluation.relearn import relearn_steps
from ..families import Classification
from ..training.config import UnlearnConfig
from ..training.recipes import CLASSIFIERS, build_classifier, digits_splits, train_classifier
from ..training.trainer import UnlearnTrainer
from .recipe import Recipe, method_of
from .spaces import FIXED

PACKAGE = Path(__file__).parents[1]
# Pages, command lines, uploads and the other family's evaluation do not change a cell.
BESIDE = (
    "cli.py hub.py arguments.py pipelines.py __main__.py report.py generation.py ddpm.py judge.py search.py "
    "terminal.py models.py layers.py page.py charts.py verdict.py side_by_side.py classifier_data.py "
    "cards.py card_text.py eval_results.py origin.py history.py files.py".split()
)
# Retrained once more from other first weights: the gap that nothing but chance makes.
AGAIN = "retrained, other start"
REFERENCES = ("original", "retrained", AGAIN)


@functools.cache
def source_digest() -> str:
    """Of all Python files that a figure could depend on."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name not in BESIDE and path.parent.name != "commands":
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Cells:
    """Computes and keeps the cells of one recipe in `folder`/cells, and its models in `models_dir` (`folder`/models).

    Comparisons of other forget sets or methods may share `models_dir`: the original models are the same.
    """

    def __init__(self, recipe: Recipe, folder: str | Path, models_dir: str | Path | None = None):
        self.recipe, self.cells = recipe, Path(folder) / "cells"
        self.models = Path(models_dir or Path(folder) / "models")
        for path in (self.cells, self.models):
            path.mkdir(parents=True, exist_ok=True)
        self._measured: dict[Any, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_measured": {}}  # processes find the data and measure by themselves

    @property
    def splits(self) -> dict[str, Any]:
        return self._data()[0]

    def _data(self) -> tuple[dict[str, Any], dict[str, str]]:
        recipe = self.recipe
        return splits_of(recipe.data, recipe.model, recipe.image_column, recipe.label_column)

    def key(self, **spec: Any) -> str:
        """Name of a model or cell by `spec` and what all of them depend on."""
        shared = {
            **{name: getattr(self.recipe, name) for name in ("data", "model", "train", "augment")},
            "digests": self._data()[1],
            "source": source_digest(),
            "versions": version_of("torch", "transformers", "scikit-learn"),
        }
        return hashlib.sha256(json.dumps({**shared, **spec}, sort_keys=True).encode()).hexdigest()[:20]

    def forget_and_retain(self, seed: int) -> tuple[Dataset, Dataset]:
        train = self.splits["train"]
        if "classes" in self.recipe.forget:
            return split_by_label(train, self.recipe.forget["classes"])
        return split_by_index(train, random_subset(len(train), self.recipe.forget["fraction"], seed))

    def measured_on(self, seed: int, split: str) -> dict[str, Dataset]:
        """forget, retain and test; `split` is the latter, of the retained classes only if classes are forgotten."""
        forget, retain = self.forget_and_retain(seed)
        if self.recipe.max_retain_samples:
            retain = Subset(retain, spread(len(retain), self.recipe.max_retain_samples))
        sets = evaluation_sets(forget, retain, self.splits[split], "classes" in self.recipe.forget)
        return {name: sets[name] for name in ("forget", "retain", "test")}

    # ---- models that are trained -----------------------------------------------------------------
    def trained(self, kind: str, seed: int, forget_seed: int | None = None) -> tuple[PreTrainedModel, float]:
        """("original" on all data, "retrained" without the forget set; seconds of training), trained at most once."""
        data, spec = self.splits["train"], {"kind": kind, "seed": seed}
        if kind == "retrained":
            spec["forget_seed"] = seed if forget_seed is None else forget_seed
            spec["forget"] = self.recipe.forget
            _, data = self.forget_and_retain(spec["forget_seed"])
        folder = self.models / self.key(**spec)
        if not (folder / "seconds.json").exists():
            model = start_of(self.recipe.model, seed)
            data = FlippedAndCropped(data) if self.recipe.augment else data
            seconds = train_classifier(model, data, seed, str(folder), **self.recipe.train)
            write_text(folder / "seconds.json", json.dumps(seconds))
        with loading(folder):
            loaded = AutoModelForImageClassification.from_pretrained(
                folder, use_safetensors=True, trust_remote_code=False
            )
        return loaded, read_json(folder / "seconds.json", float)

    # ---- figures ---------------------------------------------------------------------------------
    def figures(self, row: str, seed: int, split: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Figures of one model: row "original", "retrained", or a method's with its options."""
        options = options or {}
        decides = {name: getattr(self.recipe, name) for name in ("forget", "budget", "batch_size")}
        decides |= {name: getattr(self.recipe, name) for name in ("max_retain_samples", "fisher_samples")}
        decides["fixed"] = FIXED.get(row, {})
        path = self.cells / f"{self.key(row=row, seed=seed, split=split, options=options, **decides)}.json"
        if path.exists():
            return read_json(path)
        seconds, diverged = 0.0, None
        model, retraining = self.trained("retrained", seed)
        if row == "retrained":
            seconds = retraining
        elif row == AGAIN:
            model, seconds = self.trained("retrained", seed + 500, forget_seed=seed)
        else:
            model, _ = self.trained("original", seed)
        if row not in REFERENCES:
            model, seconds, diverged = unlearn(self.recipe, model, row, options, *self.forget_and_retain(seed), seed)
        result: dict[str, Any] = {"seconds": seconds, "time_ratio": seconds / retraining, "diverged": diverged}
        if diverged is None:
            sets = self.measured_on(seed, split)
            measured = classification_figures(model, **sets, retrained=self._retrained(seed, split), seed=seed)
            if split == "test":
                target = self._once(("known", seed), lambda: self._known(seed))
                measured["relearn_steps"] = relearn_steps(model, sets["forget"], target, seed=seed)
            result["metrics"] = {name: metric.as_dict() for name, metric in measured.items()}
        write_text(path, json.dumps({"row": row, "seed": seed, "split": split, "options": options, **result}))
        return read_json(path)

    def _retrained(self, seed: int, split: str) -> Measured:
        """What a search asks for in every trial."""

        def make() -> Measured:
            return measure(self.trained("retrained", seed)[0], self.measured_on(seed, split), seed=seed)

        return self._once((seed, split), make)

    def _known(self, seed: int) -> float:
        """The original model's accuracy on the forget set."""
        return accuracy(predictions(self.trained("original", seed)[0], self.forget_and_retain(seed)[0])).value

    def _once(self, name: Any, make: Callable[[], Any]) -> Any:
        if name not in self._measured:
            self._measured[name] = make()
        return self._measured[name]


def unlearn(
    recipe: Recipe,
    model: PreTrainedModel,
    row: str,
    options: dict[str, Any],
    forget: Dataset,
    retain: Dataset,
    seed: int,
) -> tuple[PreTrainedModel, float, str | None]:
    """(the model, changed in place; seconds with masks and Fishers; why it diverged or None)."""
    options = dict(options)
    rate = options.pop("learning_rate", None)
    method = method_of(row, options)
    if recipe.fisher_samples is not None and "fisher_samples" in {f.name for f in fields(method)}:
        method = replace(method, fisher_samples=recipe.fisher_samples)
    steps = max(1, int(recipe.budget / method.batch_gradients)) if method.trains else 1
    with tempfile.TemporaryDirectory() as folder:
        config = UnlearnConfig.quiet(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=recipe.batch_size,
            per_device_eval_batch_size=256,
            max_loss_ratio=float("inf"),
            seed=seed,
            **({"learning_rate": rate} if rate else {}),
        )
        trainer = UnlearnTrainer(Classification(model), config, method, forget, retain)
        start = time.perf_counter()
        try:
            trainer.train()
        except DivergenceError as error:  # a result: the table says so
            return model, time.perf_counter() - start, str(error)
        seconds = time.perf_counter() - start
    finite = all(p.isfinite().all() for p in model.state_dict().values() if p.is_floating_point())
    return model, seconds, None if finite else "weights are not finite"


def start_of(name: str, seed: int) -> PreTrainedModel:
    """The untrained model, or for a folder or Hub id its architecture with fresh weights."""
    if name in CLASSIFIERS:
        return build_classifier(name, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with loading(name):
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            return AutoModelForImageClassification.from_config(config, trust_remote_code=False)


@functools.cache
def splits_of(data: str, model: str, image_column: str, label_column: str) -> tuple[dict[str, Any], dict[str, str]]:
    """train, validation and test parts in memory, and a digest of each. Validation is a tenth of the training part."""
    if data == "digits":
        parts = digits_splits()
    else:
        from ..families.classifier.load import load_labelled_images

        untrained = start_of(model, 0)
        train, test = (
            in_memory(load_labelled_images(data, untrained, None, split, image_column, label_column))
            for split in ("train", "test")
        )
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        cut = len(train) // 10
        parts = {
            name: ArrayDataset(train.pixel_values[part], train.label_tensor[part])
            for name, part in (("train", order[cut:]), ("validation", order[:cut]))
        }
        parts["test"] = test
    return parts, {name: fingerprint(part, len(part)) for name, part in parts.items()}


def in_memory(dataset: Dataset) -> ArrayDataset:
    """All items decoded once."""
    items = [dataset[i] for i in range(len(dataset))]
    return ArrayDataset(*(torch.stack([item[key] for item in items]) for key in ("pixel_values", "labels")))
