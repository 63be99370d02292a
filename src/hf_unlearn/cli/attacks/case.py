"""A run and its models, ready to be attacked: what its record names is loaded and compared with it."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...common.devices import joined_state
from ...common.weights import model_digest, networks_of
from ...families.classifier.load import check_same_build
from ...families.load import CLASSIFIER, load_model, prepare_family
from ...report.record import RunRecord
from ...saving.adapters import holds_adapter, load_adapter, merged_copy, network_of
from ..side_by_side import original_of
from .asked import Asked
from .flags import AttackFlags, Known

FAMILIES = {
    "TextToImage": "text_to_image",
    "NoisePrediction": "ddpm",
    "DiTPrediction": "dit",
    "Classification": "classifier",
}  # class of the objective in the record -> name in `families.load`


@dataclass(eq=False)
class Case:
    """A run under attack.

    folder: of the run. family: name in `families.load`. asked: the flags of its command.
    unlearned, original, retrained: models on their device; processor: of a classifier.
    """

    record: RunRecord
    folder: Path
    flags: AttackFlags
    family: str
    asked: Asked
    unlearned: Any
    original: Any
    processor: Any = None
    retrained: list[Any] = field(default_factory=list)
    data: tuple[Any, Any] | None = None
    said: list[str] = field(default_factory=list)  # lines on what could not be done as asked

    @property
    def cache(self) -> str:
        """The folder of pictures that the original draws."""
        named = self.asked("cache_dir")  # cut to its last part in a record, so that it may be elsewhere
        return named if named and Path(named).is_dir() else str(self.folder / "cache")

    @property
    def device(self) -> Any:
        """Where the models are."""
        return self.unlearned.device


def family_of_record(record: RunRecord) -> str:
    """The family of a run's model. Raises ValueError for one that no attack is made for."""
    if record.family not in FAMILIES:
        raise ValueError(f"there are no attacks on models of {record.family}: it is none of {', '.join(FAMILIES)}")
    return FAMILIES[record.family]


def load_case(record: RunRecord, folder: str | Path, flags: AttackFlags, known: Known | None = None) -> Case:
    """Load the models of a run.

    Raises:
        ValueError: the original is not here or is another model, a model does not load, or is of another build.
    """
    known = known or Known()
    family = family_of_record(record)
    folders = {"train_data_dir": flags.train_data_dir, "validation_data_dir": flags.validation_data_dir}
    asked = Asked(known.command or record.command, **(folders if family == "classifier" else {}))
    revision: str | None = None
    if known.original is None or flags.original:
        given = (flags.original, None) if flags.original else known.place
        name, revision = given or original_of(record, folder)
        original, processor = _loaded(name, revision, "the original", "--original")
        check_original(record, original, name)
    else:
        name, original, processor = "the original", known.original, None
    if holds_adapter(folder):
        kept = known.original is not None and not flags.original
        unlearned = copy.deepcopy(original) if kept else _loaded(name, revision, "the original", "--original")[0]
        load_adapter(unlearned, folder)
        unlearned = merged(unlearned)
    else:
        unlearned, own = load_model(str(folder))
        processor = own or processor
    check_alike(original, unlearned, f"the original {name}")
    retrained, paths, said = list(known.retrained), list(flags.retrained_model), []
    of_run = asked("retrained_model")
    if of_run and not paths and not retrained:
        if Path(of_run).is_dir():
            paths = [of_run]
        else:
            said.append(f"the run's retrained model {of_run} is not here: --retrained_model says where it is")
    if paths:
        retrained = [_loaded(path, None, "the retrained model", "--retrained_model")[0] for path in paths]
    for number, model in enumerate(retrained):
        check_alike(model, unlearned, f"retrained model {number + 1}")
    device = joined_state().device
    for model in (unlearned, original, *retrained):
        ready(model, device)
    return Case(
        record, Path(folder), flags, family, asked, unlearned, original, processor, retrained, known.data, said
    )


def merged(model: Any) -> Any:
    """A model with its adapter in its weights, so that every attack finds plain layers."""
    network = network_of(model)
    whole = merged_copy(network).requires_grad_(True)
    if network is model:
        return whole
    setattr(model, next(name for name, part in model.components.items() if part is network), whole)
    return model


def ready(model: Any, device: Any) -> None:
    """Put a model on its device, silent and in eval mode."""
    model.to(device)
    if hasattr(model, "set_progress_bar_config"):
        model.set_progress_bar_config(disable=True)
    else:
        model.eval()


def check_original(record: RunRecord, original: Any, name: str) -> None:
    """Raise ValueError if the original's weights are not those that the run started from, as far as it noted them."""
    noted = record.base_model.weights
    if noted is not None and model_digest(original) != noted:
        raise ValueError(
            f"{name} has other weights than the model that the run started from: say with --original where that one is"
        )


def check_alike(model: Any, unlearned: Any, name: str) -> None:
    """Raise ValueError unless `model`, called `name`, is a model as the unlearned one is."""
    if type(model) is not type(unlearned):
        raise ValueError(f"{name} is a {type(model).__name__}, the run's model a {type(unlearned).__name__}")
    if prepare_family(unlearned) is CLASSIFIER:
        check_same_build(unlearned, model, name)
    ours, theirs = _shapes(unlearned), _shapes(model)
    for weight in sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))[:1]:
        raise ValueError(
            f"{name} is another architecture: {weight} is {theirs.get(weight)}, the run's {ours.get(weight)}"
        )


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {f"{n}.{k}": tuple(p.shape) for n, part in networks_of(model).items() for k, p in part.named_parameters()}


def _loaded(name: str, revision: str | None, what: str, flag: str) -> tuple[Any, Any]:
    try:
        return load_model(name, revision)
    except OSError as error:
        raise ValueError(f"{what} {name} does not load ({error}): give a folder with {flag}") from error
