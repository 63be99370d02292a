"""A comparison as YAML: data, model, what to forget, which methods, one budget, seeds and search."""

import re
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from ..methods import METHODS, Method
from ..report.reading import typed
from ..training.config import UnlearnConfig
from .spaces import FIXED

SHIPPED = files("hf_unlearn.compare") / "recipes"
FORGET = {"fraction": float, "classes": list[int]}


@dataclass
class Recipe:
    """What `hf-unlearn compare` reads.

    data: "digits", or a folder of parquet files or images with a train and a test part.
    model: a name of `hf_unlearn.training.recipes.CLASSIFIERS`, or the folder or Hub id of an image classifier.
    forget: {"fraction": 0.1} (a random subset, another one for each seed) or {"classes": [3]}.
    train: overrides of UnlearnConfig for the original and the retrained model.
    augment: whether these two train on mirrored and moved images; unlearning and measuring see them as they are.
    budget: batch gradients (forward and backward of one batch) that each method may spend; the batch size.
    methods: rows; "sfron:paper" is SFRon with that preset.
    trials: search trials for every method.
    search_seeds: of the forget sets and models that trials run on, which the table never uses; they are scored on the
        validation split.
    max_retain_samples: how many retained samples the figures are measured on, evenly spread; 0 is all.
    fisher_samples: samples of each set for the Fishers of the methods that have that option; None is their default.
    shadows: shadow models a side for the likelihood-ratio attack; 0 skips it.
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
    trials: int = 12
    search_seeds: list[int] = field(default_factory=lambda: [1000, 1001, 1002])
    image_column: str = "image"
    label_column: str = "label"
    max_retain_samples: int = 0
    fisher_samples: int | None = None
    shadows: int = 0

    def __post_init__(self):
        for name, hint in get_type_hints(Recipe).items():
            self._check_type(hint, getattr(self, name), name)
        if not re.fullmatch(r"\w[\w.-]*", self.name):  # it is the name of a folder
            raise ValueError(f"recipe {self.name}: the name must be letters, digits, - _ .")
        unknown = sorted(set(self.train) - {f.name for f in fields(UnlearnConfig)})
        if unknown:
            raise ValueError(f"recipe {self.name}: train has {unknown[0]!r}, which UnlearnConfig has not")
        if len(self.forget) != 1 or not self.forget.keys() <= FORGET.keys():
            raise ValueError(f"recipe {self.name}: forget must be one of fraction or classes, got {self.forget}")
        for name, value in self.forget.items():
            self._check_type(FORGET[name], value, f"forget.{name}")
        fraction = self.forget.get("fraction", 0.5)
        if not 0 < fraction < 1:
            raise ValueError(f"recipe {self.name}: the forget fraction must lie in (0, 1), got {fraction}")
        for row in self.methods:
            method_of(row, {})
        shared = sorted(set(self.search_seeds) & set(self.seeds))
        if shared:
            raise ValueError(f"recipe {self.name}: search seed {shared[0]} is one of the table's seeds")
        if not self.seeds or not self.search_seeds or self.trials < 1 or self.budget < 1:
            raise ValueError(f"recipe {self.name}: seeds, trials and budget must not be empty or 0")
        if self.shadows and self.shadows < 3:
            raise ValueError(f"recipe {self.name}: the likelihood-ratio attack needs 3 shadow models or more")

    def _check_type(self, hint: Any, value: Any, where: str) -> None:
        try:
            typed(hint, value, where)
        except ValueError as error:
            raise ValueError(f"recipe {self.name}: {error}") from None


def load_recipe(source: str) -> Recipe:
    """A YAML file, or the name of a shipped recipe.

    Raises:
        ValueError: no such file or recipe, a key that is unknown or missing, or a value that makes no sense.
    """
    shipped = SHIPPED / f"{source}.yaml"
    path = Path(source) if Path(source).suffix in (".yaml", ".yml") else shipped
    if not path.is_file():
        known = sorted(p.name.removesuffix(".yaml") for p in SHIPPED.iterdir() if p.name.endswith(".yaml"))
        raise ValueError(f"recipe {source} is neither a YAML file nor one of {', '.join(known)}")
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"recipe {source} cannot be read: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"recipe {source} is not a mapping of keys to values")
    keys = [f.name for f in fields(Recipe)]
    unknown = sorted(map(str, set(given) - set(keys)))
    if unknown:
        raise ValueError(f"recipe {source}: unknown key {unknown[0]!r}, known are {', '.join(keys)}")
    needed = [n for n in ("name", "data", "model", "forget", "methods", "seeds") if n not in given]
    if needed:
        raise ValueError(f"recipe {source}: {needed[0]} is missing")
    return Recipe(**given)


def method_of(row: str, options: dict[str, Any]) -> Method:
    """The Method of a row: its preset, what the row fixes besides (`spaces.FIXED`), then `options`."""
    name, _, preset = row.partition(":")
    if name not in METHODS:
        raise ValueError(f"method {name!r} is not one of {', '.join(METHODS)}")
    method = METHODS[name]
    if preset and preset not in method.presets:
        raise ValueError(f"method {name} has no preset {preset!r}: {', '.join(method.presets) or 'it has none'}")
    chosen = {"preset": preset, **method.presets[preset]} if preset else {}
    return method(**{**chosen, **FIXED.get(row, {}), **options})
