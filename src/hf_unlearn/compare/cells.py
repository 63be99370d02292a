"""The cells of a comparison: original, retrained and unlearned models and their metrics, each computed once.

A cell is named by a hash of all that it depends on: the recipe, its options and seed, the data, the modules of this
package that it runs (`closure`) and the versions of its libraries. A changed input is another cell; a stale one is
never read.
"""

import copy
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoModelForImageClassification, PreTrainedModel

from ..common.errors import DivergenceError
from ..common.files import write_text
from ..common.keys import content_key
from ..common.losses import spread
from ..common.untrusted import loading, read_json
from ..data.pairs import subset
from ..data.protocols import SizedDataset
from ..evaluation.classification import (
    Measured,
    Predictions,
    accuracy,
    classification_figures,
    measure,
    predictions,
)
from ..evaluation.classifier_rows import evaluation_sets
from ..evaluation.iam import unlearning_score
from ..evaluation.metric import Metric, version_of
from ..evaluation.relearn import relearn_steps
from ..evaluation.rmia import of_classes, rmia
from ..families import Classification
from ..methods import Method
from ..training.config import CLASSIFIER_RATE, UnlearnConfig
from ..training.trainer import UnlearnTrainer
from .budget import steps_of
from .closure import MODELS, source_of
from .models import forget_and_retain, own_digests, own_model, splits_of, start_of, train_model
from .rows import AGAIN, FIRST_SHADOW, OTHER_START, RATE, REFERENCES, fixed_of, method_of

if TYPE_CHECKING:  # its values are in the key of every cell
    from .recipe import Recipe


class Cells:
    """Computes the cells of a recipe and keeps them in `folder`/cells, their models in `models_dir`.

    The default of `models_dir` is `folder`/models. Comparisons with other forget sets or methods may share it, since
    the original models are the same.
    """

    def __init__(self, recipe: "Recipe", folder: str | Path, models_dir: str | Path | None = None):
        self.recipe, self.cells = recipe, Path(folder) / "cells"
        self.models = Path(models_dir or Path(folder) / "models")
        for path in (self.cells, self.models):
            path.mkdir(parents=True, exist_ok=True)
        self._measured: dict[Any, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_measured": {}}  # each process loads the data and measures by itself

    def key(self, source: str, **spec: Any) -> str:
        """Name a model or cell by `spec`, the digest of its source, and what all of them depend on."""
        shared = {
            **{name: getattr(self.recipe, name) for name in ("data", "model", "train", "augment")},
            "digests": splits_of(self.recipe)[1],
            "source": source,
            "versions": version_of("torch", "transformers", "scikit-learn"),
        }
        if self.recipe.original:
            shared["own"] = own_digests(self.recipe)
        return content_key({**shared, **spec}, digits=20)

    def cell_path(self, row: str, seed: int, split: str, options: dict[str, Any]) -> Path:
        """The file of a cell. The method's own source is in its name, that of other methods is not."""
        decides = {name: getattr(self.recipe, name) for name in ("forget", "budget", "batch_size")}
        decides |= {
            name: getattr(self.recipe, name) for name in ("max_retain_samples", "fisher_samples", "references")
        }
        decides["fixed"] = {} if row in REFERENCES else fixed_of(row)
        source = source_of(None if row in REFERENCES else method_of(row, options))
        return self.cells / f"{self.key(source, row=row, seed=seed, split=split, options=options, **decides)}.json"

    def measured_on(self, seed: int, split: str) -> dict[str, SizedDataset]:
        """The forget, retain and test sets; `test` is the part `split`, without the classes that are forgotten."""
        forget, retain = forget_and_retain(self.recipe, seed)
        if self.recipe.max_retain_samples:
            retain = subset(retain, spread(len(retain), self.recipe.max_retain_samples))
        test = splits_of(self.recipe)[0][split]
        sets = evaluation_sets(forget, retain, test, "classes" in self.recipe.forget)
        return {name: sets[name] for name in ("forget", "retain", "test")}

    @property
    def references(self) -> tuple[str, ...]:
        """The rows that are no methods. There is one retrained model only where it is given."""
        return tuple(row for row in REFERENCES if row != AGAIN or not self.recipe.original)

    @property
    def sizes(self) -> tuple[int, int]:
        """Samples to forget and to retain, for the first seed of the search."""
        forget, retain = forget_and_retain(self.recipe, self.recipe.search_seeds[0])
        return len(forget), len(retain)

    @property
    def share(self) -> float:
        """Share of the training data that is forgotten."""
        return self.sizes[0] / sum(self.sizes)

    def check(self) -> None:
        """Raise ValueError for data, given models or rows that do not fit, before anything is trained."""
        if self.recipe.original:
            own_model(self.recipe, "retrained")
        for row in self.recipe.methods:
            self.default_method(row)

    def default_method(self, row: str) -> Method:
        """A row's method without searched options, with all decided that depends on the model and the data.

        Raises:
            ValueError: its options do not fit the model or the sizes of the sets.
        """
        model = own_model(self.recipe, "original") if self.recipe.original else start_of(self.recipe.model, 0)
        return method_of(row, {}).resolved(Classification(model)).sized(*self.sizes)

    def default_rate(self, row: str) -> float:
        """The learning rate that a row has without a search."""
        return fixed_of(row).get(RATE, CLASSIFIER_RATE)

    def trained(self, kind: str, seed: int, forget_seed: int | None = None) -> tuple[PreTrainedModel, float | None]:
        """Load a reference model and the seconds of its training, None for a model that was given.

        It is trained at most once.

        Args:
            kind: "original" is trained on all data, "retrained" without the forget set of `forget_seed`.
            seed: of the first weights and the order of the data.
            forget_seed: the default is `seed`.
        """
        if self.recipe.original:
            return copy.deepcopy(own_model(self.recipe, kind)), None
        spec: dict[str, Any] = {"kind": kind, "seed": seed}
        left_out = None
        if kind == "retrained":
            left_out = seed if forget_seed is None else forget_seed
            spec |= {"forget_seed": left_out, "forget": self.recipe.forget}
        folder = self.models / self.key(source_of(start=MODELS), **spec)
        if not (folder / "seconds.json").exists():
            seconds = train_model(self.recipe, seed, left_out, folder)
            write_text(folder / "seconds.json", json.dumps(seconds))
        with loading(folder):
            loaded = AutoModelForImageClassification.from_pretrained(
                folder, use_safetensors=True, trust_remote_code=False
            )
        return loaded, read_json(folder / "seconds.json", float)

    def result(self, row: str, seed: int, split: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Metrics of one model, its seconds and why it diverged: a reference's, or a method's with its options."""
        options = options or {}
        path = self.cell_path(row, seed, split, options)
        if path.exists():
            return read_json(path)
        seconds: float | None = 0.0
        diverged = None
        model, retraining = self.trained("retrained", seed)
        if row == "retrained":
            seconds = retraining
        elif row == AGAIN:
            model, seconds = self._again(seed)
        else:
            model, _ = self.trained("original", seed)
        if row not in REFERENCES:
            parts = forget_and_retain(self.recipe, seed)
            model, seconds, diverged = unlearn(self.recipe, model, row, options, *parts, seed)
        ratio = None if seconds is None or retraining is None else seconds / retraining
        result: dict[str, Any] = {"seconds": seconds, "time_ratio": ratio, "diverged": diverged}
        if diverged is None:
            sets = self.measured_on(seed, split)
            metrics = classification_figures(
                model, sets["forget"], sets["retain"], sets["test"], self._retrained(seed, split), seed=seed
            )
            if split == "test":
                metrics |= self._iam(model, row, seed) | self._rmia(model, seed)
                known = accuracy(self._original(seed)).number
                metrics["relearn_steps"] = relearn_steps(model, sets["forget"], known, seed=seed)
            result["metrics"] = {name: metric.as_dict() for name, metric in metrics.items()}
        write_text(path, json.dumps({"row": row, "seed": seed, "split": split, "options": options, **result}))
        return read_json(path)

    def _retrained(self, seed: int, split: str) -> Measured:
        """Measure the retrained model, which every trial of a search is compared with."""

        def make() -> Measured:
            return measure(self.trained("retrained", seed)[0], self.measured_on(seed, split), seed=seed)

        return self._once((seed, split), make)

    def _again(self, seed: int) -> tuple[PreTrainedModel, float | None]:
        """The model that was retrained from another start, with its seconds."""
        return self.trained("retrained", seed + OTHER_START, forget_seed=seed)

    def _original(self, seed: int) -> Predictions:
        """The original model's outputs on the forget set."""
        forget, _ = forget_and_retain(self.recipe, seed)
        return self._once(("original", seed), lambda: predictions(self.trained("original", seed)[0], forget))

    def _iam(self, model: PreTrainedModel, row: str, seed: int) -> dict[str, Metric]:
        """The IAM unlearning score; none for the shadow model itself, nor where a retrained model was given.

        The shadow is the model retrained from another start, never the one that the gaps are distances to.
        """
        if AGAIN not in self.references or row == AGAIN:
            return {}
        forget, _ = forget_and_retain(self.recipe, seed)
        original = self._original(seed)
        shadow = self._once(("shadow", seed), lambda: predictions(self._again(seed)[0], forget))
        ours = predictions(model, forget)
        return {"iam_score": unlearning_score(ours.logits, original.logits, shadow.logits, ours.labels)}

    @property
    def reference_models(self) -> list[tuple[str, int, int]]:
        """Arguments of `trained` for the reference models of RMIA, for every seed of the table."""
        return [model for seed in self.recipe.seeds for model in self.references_for(seed)]

    def references_for(self, seed: int) -> list[tuple[str, int, int]]:
        """Arguments of `trained` for the models without the forget set of `seed`, which are no row's.

        Where all seeds have one forget set they share them. The likelihood-ratio attack has the same ones as shadows.
        """
        drawn = "fraction" in self.recipe.forget and "seed" not in self.recipe.forget
        forget_seed = seed if drawn else self.recipe.seeds[0]
        return [("retrained", FIRST_SHADOW + k, forget_seed) for k in range(self.recipe.references)]

    def _rmia(self, model: PreTrainedModel, seed: int) -> dict[str, Metric]:
        """RMIA of the forget samples against test samples of their classes; none without reference models."""
        if not self.recipe.references:
            return {}
        forget, _ = forget_and_retain(self.recipe, seed)
        test = splits_of(self.recipe)[0]["test"]

        def outputs(attacked: PreTrainedModel) -> tuple[Predictions, Predictions]:
            known = predictions(attacked, forget)
            return known, of_classes(predictions(attacked, test), sorted(set(known.labels.tolist())))

        def make() -> list[tuple[Predictions, Predictions]]:
            return [outputs(self.trained(*reference)[0]) for reference in self.references_for(seed)]

        return {"rmia_auc": rmia(*outputs(model), self._once(("references", seed), make))}

    def _once(self, name: Any, make: Callable[[], Any]) -> Any:
        if name not in self._measured:
            self._measured[name] = make()
        return self._measured[name]


def unlearn(
    recipe: "Recipe",
    model: PreTrainedModel,
    row: str,
    options: dict[str, Any],
    forget: SizedDataset,
    retain: SizedDataset,
    seed: int,
) -> tuple[PreTrainedModel, float, str | None]:
    """Run a row's method on `model`, which is changed in place.

    Returns:
        (the model, seconds with masks and Fishers, why it diverged or None).
    """
    given = {**fixed_of(row), **options}
    if recipe.fisher_samples is not None and "fisher_samples" in {f.name for f in fields(method_of(row, {}))}:
        given = {"fisher_samples": recipe.fisher_samples, **given}
    method, steps = method_of(row, given), steps_of(recipe, row, options, len(forget), len(retain))
    with tempfile.TemporaryDirectory() as folder:
        config = UnlearnConfig.quiet(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=recipe.batch_size,
            per_device_eval_batch_size=256,
            max_loss_ratio=float("inf"),
            seed=seed,
            learning_rate=given.get(RATE, None if method.finds_strength else CLASSIFIER_RATE),
        )
        holdout = splits_of(recipe)[0]["validation"]
        trainer = UnlearnTrainer(Classification(model), config, method, forget, retain, holdout_dataset=holdout)
        start = time.perf_counter()
        try:
            trainer.train()
        except DivergenceError as error:  # a result: the table says so
            return model, time.perf_counter() - start, str(error)
        seconds = time.perf_counter() - start
    finite = all(p.isfinite().all() for p in model.state_dict().values() if p.is_floating_point())
    return model, seconds, None if finite else "weights are not finite"
