"""A sequence from a YAML file: model, data, tasks, memory, method, and the requests."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ..augmentation import generator_of
from ..common.files import write_text
from ..common.limits import EXTENSION
from ..compare.models import splits_of, start_of
from ..compare.recipe import Recipe
from ..families import Classification
from ..families.classifier.load import load_image_classifier
from ..families.load import load_model
from ..report.reading import from_json
from ..training.config import UnlearnConfig
from ..training.recipes import CLASSIFIERS, digits_splits
from .diffusion.setup import SHIPPED, PictureSetup
from .memory import ReplayMemory
from .registry import strategy_of
from .requests import Part, Request, requests_of
from .runner import Sequence
from .tasks import Tasks
from .variants import MemoryVariants

SETUP_FILE = "requests.yaml"


@dataclass(frozen=True)
class Setup:
    """What a file of requests says of the model and its data.

    model: a name of `CLASSIFIERS`, which begins untrained, or folder or Hub id of an image classifier.
    data: "digits", or a folder or Hub id of images with a train and a test part.
    tasks: the class numbers of each task.
    known: tasks that the model has learnt already.
    memory: `samples` or `size` (bytes), and `by`, reservoir or herding.
    method: name of a strategy.
    options: of the strategy.
    variants: what draws variants of the memory's samples: `generator`, "digits_ddpm" or folder or Hub id of a pipeline
        that draws the classes, `factor` and `strength`.
    steps, batch_size: outer steps of each training, of which one that has not forgotten takes up to four times as
        many, and samples in a batch.
    learning_rate: of every training; without one, what forgets finds its strength.
    checkpoint_steps: outer steps between checkpoints, from which a killed request goes on; 0 writes none.
    """

    model: str
    data: str
    tasks: list[list[int]]
    known: list[int] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)
    method: str = "clu"
    options: dict[str, Any] = field(default_factory=dict)
    steps: int = 80
    batch_size: int = 32
    seed: int = 0
    learning_rate: float | None = None
    checkpoint_steps: int = 20
    image_column: str = "image"
    label_column: str = "label"
    variants: dict[str, Any] = field(default_factory=dict)

    def sequence(self, folder: str | Path) -> Sequence:
        """Load model and data. Raises ValueError or OSError where they do not load or do not fit."""
        network, parts = self._loaded()
        tasks = Tasks(parts["train"], parts["test"], self.tasks, parts["validation"])
        unknown = sorted(self.memory.keys() - {"samples", "size", "by", "seed"})
        if unknown:
            raise ValueError(f"memory has the unknown key {unknown[0]!r}, known are samples, size and by")
        bound = {} if "samples" in self.memory or "size" not in self.memory else {"samples": None}
        saves = {"save_strategy": "steps", "save_steps": self.checkpoint_steps, "save_total_limit": 1}
        config = UnlearnConfig.quiet(
            output_dir=str(folder),
            max_steps=self.steps,
            extend_to=EXTENSION * self.steps,
            per_device_train_batch_size=self.batch_size,
            per_device_eval_batch_size=256,
            seed=self.seed,
            learning_rate=self.learning_rate,
            **(saves if self.checkpoint_steps else {}),
        )
        known = Part(tasks=tuple(self.known)) if self.known else None
        memory = ReplayMemory(**{"seed": self.seed, **bound, **self.memory})
        strategy = strategy_of(self.method, **self.options)
        return Sequence(network, config, tasks, memory, strategy, known, variants=memory_variants(self.variants))

    def _loaded(self) -> tuple[Any, Any]:
        columns: dict[str, Any] = {"image_column": self.image_column, "label_column": self.label_column}
        if self.model in CLASSIFIERS:
            recipe = Recipe("requests", self.data, self.model, {"fraction": 0.1}, [], [0], **columns)
            return start_of(self.model, self.seed), splits_of(recipe)[0]
        network, processor = load_image_classifier(self.model)
        if self.data == "digits":
            return Classification(network, processor), digits_splits()
        given: dict[str, Any] = {
            "original": self.model,
            "retrained": self.model,
        }  # a comparison reads the data of trained models so
        recipe = Recipe("requests", self.data, "", {"fraction": 0.1, "seed": 0}, [], [0], **given, **columns)
        return Classification(network, processor), splits_of(recipe)[0]


def memory_variants(given: dict[str, Any]) -> MemoryVariants | None:
    """What a mapping of `generator`, `factor` and `strength` says; None for an empty one.

    Raises:
        ValueError: another key, no generator, one that draws no classes, or a factor or strength out of range.
        OSError: the generator does not load.
    """
    if not given:
        return None
    unknown = sorted(given.keys() - {"generator", "factor", "strength"})
    if unknown:
        raise ValueError(f"variants has the unknown key {unknown[0]!r}, known are generator, factor and strength")
    name = given.get("generator")
    if not isinstance(name, str) or not name:
        raise ValueError("variants names no generator: give digits_ddpm, or folder or Hub id of a pipeline")
    options = {key: value for key, value in given.items() if key != "generator"}
    pipeline, _ = load_model(SHIPPED.get(name, name))
    return MemoryVariants(generator_of(pipeline, name=name), **options)


def read_file(path: str | Path) -> tuple[Setup | PictureSetup | None, list[Request]]:
    """Setup and requests of a YAML file, either of which it may lack. One with tasks is of a classifier.

    Raises:
        ValueError: the file cannot be read, has an unknown key, or what its values raise.
    """
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"requests {path} cannot be read: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"requests {path} is not a mapping of keys to values")
    kind: type[Setup | PictureSetup] = Setup if "tasks" in given or given.get("model") in CLASSIFIERS else PictureSetup
    keys = [f.name for f in fields(kind)]
    unknown = sorted(str(key) for key in given if key not in [*keys, "requests"])
    if unknown:
        raise ValueError(f"requests {path}: unknown key {unknown[0]!r}, known are {', '.join(keys)} and requests")
    try:
        asked = requests_of(given.pop("requests")) if given.get("requests") is not None else []
        given.pop("requests", None)
        setup: Setup | PictureSetup | None = from_json(kind, given, "") if given else None
        return setup, asked
    except ValueError as error:
        raise ValueError(f"requests {path}: {error}") from None


def stored_setup(folder: str | Path, given: Setup | PictureSetup | None = None) -> Setup | PictureSetup:
    """The setup of a folder: the one that is stored there, or else `given`, which is stored by `store_setup`.

    Raises:
        ValueError: there is none, or the stored one is another.
    """
    path = Path(folder) / SETUP_FILE
    if not path.is_file():
        if given is None:
            raise ValueError(f"{folder} has no {SETUP_FILE} yet: name model, data and tasks in a --file")
        return given
    there, _ = read_file(path)
    if there is None:
        raise ValueError(f"{path} names no model: remove it, and name one in a --file")
    if given is not None and given != there:
        values = asdict(there)
        name = next(name for name, value in asdict(given).items() if value != values.get(name))
        raise ValueError(
            f"{folder} was set up with {name} {values.get(name)}, not {asdict(given)[name]}: name another folder"
        )
    return there


def store_setup(folder: str | Path, setup: Setup | PictureSetup) -> None:
    """Write the setup to `folder`, unless it is there."""
    path = Path(folder) / SETUP_FILE
    if not path.is_file():
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_text(path, yaml.safe_dump(asdict(setup), sort_keys=False))
