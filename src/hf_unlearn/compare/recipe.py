"""A comparison as YAML: data, model, what to forget, which methods, one budget, seeds and search."""

import re
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from ..report.reading import typed
from ..training.config import UnlearnConfig
from .rows import method_of

SHIPPED = files("hf_unlearn.compare") / "recipes"
SMALLER = ("_100th", "_47th")  # of the names of recipes with smaller budgets
YAML = (".yaml", ".yml")
FORGET = {"fraction": float, "classes": list[Any], "indices": list[int]}


@dataclass
class Recipe:
    """What `hf-unlearn compare` reads.

    Args:
        name: The comparison's name, and the name of its folder.
        data: "digits", or a folder of parquet files or images with a train and a test part.
        model: What is trained: a name of `hf_unlearn.training.recipes.CLASSIFIERS`, or the folder or Hub id of an
            image classifier, of which only the architecture and the image processor are used.
        forget: {"fraction": 0.1} for a random subset, another one for each seed, {"classes": [3, "Shirt"]} by number
            or name, or {"indices": [...]}, positions in the training part.
        methods: The rows; "sfron:paper" is SFRon with that preset, "sfron:retain_loss=data" fixes an option.
        seeds: The seeds of the table: of the models' first weights, the forget subsets and the unlearning.
        budget: Batch gradients (forward and backward of one batch) that each method may spend.
        batch_size: Samples in a batch of unlearning.
        train: Values of UnlearnConfig for the training of the original and the retrained model.
        augment: Whether these two are trained on mirrored and moved images. Unlearning and measuring use the images
            as they are.
        accuracy_limit: Points that the means of retained and of test accuracy may lie below the retrained models'. A
            row or trial that loses more is ranked behind all that do not, and is never the best.
        trials: Search trials for every method.
        search_seeds: Seeds of the forget sets and models that trials run on. The table never uses them, and trials
            are scored on the validation split.
        image_column, label_column: The columns of parquet files.
        max_retain_samples: How many retained samples to measure on, evenly spread; 0 takes all.
        fisher_samples: Samples of each set for the Fishers of the methods that have this option; None keeps their
            default.
        shadows: Shadow models on each side of the likelihood-ratio attack; 0 skips it. From 16 on its table has a part
            for the samples that are most vulnerable.
        references: Retrained models that RMIA compares with, for each forget set; 0 skips it. The paper takes 4.
        original, retrained: Folders or Hub ids of models that are trained already, instead of `model`: on all of the
            training part, and without the forget set. A random subset must then be the one that was left out:
            {"fraction": 0.1, "seed": 0} says which, as `hf-unlearn classify --forget_fraction 0.1 --seed 0` draws it.
    """

    name: str
    data: str
    model: str
    forget: dict[str, Any]
    methods: list[str]
    seeds: list[int]
    budget: int = 120
    batch_size: int = 64
    train: dict[str, Any] = field(default_factory=dict)
    augment: bool = False
    accuracy_limit: float = 1.5
    trials: int = 12
    search_seeds: list[int] = field(default_factory=lambda: [1000, 1001, 1002])
    image_column: str = "image"
    label_column: str = "label"
    max_retain_samples: int = 0
    fisher_samples: int | None = None
    shadows: int = 0
    references: int = 0
    original: str | None = None
    retrained: str | None = None

    def __post_init__(self):
        for name, hint in get_type_hints(Recipe).items():
            self._check_type(hint, getattr(self, name), name)
        if not re.fullmatch(r"\w[\w.-]*", self.name):  # it is the name of a folder
            raise ValueError(f"recipe {self.name}: the name must be letters, digits, - _ .")
        unknown = sorted(set(self.train) - {f.name for f in fields(UnlearnConfig)})
        if unknown:
            raise ValueError(f"recipe {self.name}: train has {unknown[0]!r}, which UnlearnConfig has not")
        self._check_forget()
        self._check_models()
        for row in self.methods:
            method_of(row, {})
        shared = sorted(set(self.search_seeds) & set(self.seeds))
        if shared:
            raise ValueError(f"recipe {self.name}: search seed {shared[0]} is one of the table's seeds")
        if not self.seeds or not self.search_seeds or self.trials < 1 or self.budget < 1:
            raise ValueError(f"recipe {self.name}: seeds, trials and budget must not be empty or 0")
        if self.accuracy_limit < 0:
            raise ValueError(f"recipe {self.name}: accuracy_limit is in points and at least 0")
        if self.shadows and self.shadows < 3:
            raise ValueError(f"recipe {self.name}: the likelihood-ratio attack needs 3 shadow models or more")
        if self.references < 0:
            raise ValueError(f"recipe {self.name}: references is a number of models, got {self.references}")

    @property
    def retraining_gradients(self) -> float | None:
        """Batch gradients of `batch_size` samples that retraining takes; None where the recipe does not say."""
        steps, size = (self.train.get(name) for name in ("max_steps", "per_device_train_batch_size"))
        return None if self.original or not steps or not size else steps * size / self.batch_size

    def _check_forget(self) -> None:
        kinds = [name for name in self.forget if name in FORGET]
        if len(kinds) != 1 or self.forget.keys() - FORGET.keys() - ({"seed"} if kinds == ["fraction"] else set()):
            raise ValueError(
                f"recipe {self.name}: forget must be one of fraction or classes or indices, got {self.forget}"
            )
        for name, value in self.forget.items():
            self._check_type({**FORGET, "seed": int}[name], value, f"forget.{name}")
        fraction = self.forget.get("fraction", 0.5)
        if not 0 < fraction < 1:
            raise ValueError(f"recipe {self.name}: the forget fraction must lie in (0, 1), got {fraction}")
        for wanted in self.forget.get("classes", []):
            if isinstance(wanted, bool) or not isinstance(wanted, int | str):
                raise ValueError(f"recipe {self.name}: forget.classes holds {wanted!r}: write names or numbers")

    def _check_models(self) -> None:
        given = [name for name in ("original", "retrained") if getattr(self, name)]
        if len(given) == 1:
            raise ValueError(f"recipe {self.name}: {given[0]} is given alone: give both original and retrained")
        if not given and not self.model:
            raise ValueError(f"recipe {self.name}: model is missing, or original and retrained")
        if given and "fraction" in self.forget and "seed" not in self.forget:
            raise ValueError(
                f"recipe {self.name}: retrained was trained without one random subset: say which, as "
                "forget: {fraction: 0.1, seed: 0}, or by indices"
            )
        if given and self.shadows:
            raise ValueError(f"recipe {self.name}: shadow models are trained here: set shadows to 0 with an original")
        if given and self.references:
            raise ValueError(
                f"recipe {self.name}: reference models are trained here: set references to 0 with an original"
            )

    def _check_type(self, hint: Any, value: Any, where: str) -> None:
        try:
            typed(hint, value, where)
        except ValueError as error:
            raise ValueError(f"recipe {self.name}: {error}") from None


def load_recipe(source: str, **instead: Any) -> Recipe:
    """Read a recipe from a YAML file, or by the name of a shipped one.

    What a recipe does not say is taken from the recipe that its key `like` names: a shipped one, or a file beside it.

    Args:
        instead: Values that replace or complete those of the file.

    Raises:
        ValueError: there is no such file or recipe, a key is unknown or missing, or a value makes no sense.
    """
    given = _mapping(source)
    like = given.pop("like", None)
    if like is not None:
        if not isinstance(like, str):
            raise ValueError(f"recipe {source}: like must be the name of a recipe, got {like!r}")
        base = _mapping(str(Path(source).parent / like) if Path(like).suffix in YAML else like)
        if "like" in base:  # one level is read at a glance, and cannot be a circle
            raise ValueError(f"recipe {source}: {like} is itself like another recipe, name that one")
        given = {**base, **given}
    given |= instead
    if given.get("original"):  # then there is none to train
        none = {name: instead.get(name, 0) for name in ("shadows", "references")}
        given = {**given, "model": "", **none}
    keys = [f.name for f in fields(Recipe)]
    unknown = sorted(map(str, set(given) - set(keys)))
    if unknown:
        raise ValueError(f"recipe {source}: unknown key {unknown[0]!r}, known are {', '.join(keys)}")
    needed = [n for n in ("name", "data", "model", "forget", "methods", "seeds") if n not in given]
    if needed:
        raise ValueError(f"recipe {source}: {needed[0]} is missing")
    return Recipe(**given)


def _mapping(source: str) -> dict[Any, Any]:
    """The keys and values of a recipe's file, as they stand there."""
    shipped = SHIPPED / f"{source}.yaml"
    path = Path(source) if Path(source).suffix in YAML else shipped
    if not path.is_file():
        names = sorted(p.name.removesuffix(".yaml") for p in SHIPPED.iterdir() if p.name.endswith(".yaml"))
        names = [name for name in names if not name.endswith(SMALLER)]
        more = ", some also as " + " and ".join(f"NAME{end}" for end in SMALLER)
        raise ValueError(f"recipe {source} is neither a YAML file nor one of {', '.join(names)}{more}")
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"recipe {source} cannot be read: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"recipe {source} is not a mapping of keys to values")
    return given
