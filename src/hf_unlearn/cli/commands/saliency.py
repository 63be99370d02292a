"""hf-unlearn saliency [MODEL]: which weights matter for the forget data, as a table and a mask file."""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..terminal import check_writable
from .saliency_flags import parser

if TYPE_CHECKING:
    from ...data.protocols import SizedDataset
    from ...families import Objective
    from ...saliency.masks import Masks

BOTH: tuple[str, ...] = ("dataset_name", "dataset_config_name", "train_data_dir", "forget_class", "forget_indices")
BOTH += ("image_column", "label_column")
OBJECTIVE = ("label_dropout", "antithetic", "null_class", "variance_weight", "random_flip", "cache_dir")
PIPELINES = ("forget_data_dir", "resolution", "center_crop", *OBJECTIVE)
CLASSIFIERS = ("forget_fraction", "max_train_samples", "skip_unreadable_images", "image_mean", "image_std")
MASK = ("mask_threshold", "fisher", "fisher_samples", "fisher_batch_size")


def saliency_command(argv: list[str]) -> None:
    """hf-unlearn saliency [MODEL]"""
    options = parser().parse_args(argv)
    output = Path(options.output)
    if output.is_dir():
        raise ValueError(f"--output {output} is a folder: name a file")
    if options.top < 1:
        raise ValueError(f"--top must be at least 1, got {options.top}")
    given = {k: v for k, v in vars(options).items() if v is not None}
    from ...common.bars import phase

    phase("loading model and data")
    objective, forget, retain = load(options.model, given)
    phase("computing Fishers")
    masks = compute(objective, forget, retain, given)
    check_writable(str(output.parent))
    masks.save(output)
    print(as_json(masks, output) if options.json else table(masks, output, options.top))


def load(model: str | None, given: dict[str, Any]) -> tuple["Objective", "SizedDataset", "SizedDataset"]:
    """Return (objective, forget, retain) as the training commands make them from the same flags; `given` holds no
    default.

    Raises:
        ValueError: a flag that is for another family, a text-to-image pipeline, or what loading raises.
    """
    import torch

    from ...evaluation import DIGITS_DDPM
    from ...families import Classification, DiTPrediction, NoisePrediction
    from ...families.load import CLASSIFIER, DIT, TEXT_TO_IMAGE, load_model, prepare_family
    from ..classifier_flags import ClassifierDataFlags, processor_of, split_train, train_images
    from ..flags import ImageDataFlags
    from ..image_sets import latent_sets, unet_sets

    loaded, processor = load_model(model or str(DIGITS_DDPM), given.get("revision"))
    family = prepare_family(loaded)
    if family is CLASSIFIER:
        _refuse(given, PIPELINES, "a classifier")
        flags = ClassifierDataFlags(**_chosen(given, (*BOTH, *CLASSIFIERS), forget_indices=_one_file))
        processor = processor_of(flags, loaded, processor, str(model))
        train = train_images(flags, loaded, processor)
        forget, retain = split_train(flags, train, loaded, given["seed"])
        return Classification(loaded, processor), forget, retain
    _refuse(given, CLASSIFIERS, "a pipeline")
    if family is TEXT_TO_IMAGE:
        raise ValueError(
            "a text-to-image pipeline needs its prompts: `hf-unlearn sd` keeps the masks in OUTPUT_DIR/cache/masks"
        )
    names = (*BOTH, "forget_data_dir", "resolution", "center_crop")
    images = ImageDataFlags(**_chosen(given, names, forget_indices=_numbers))
    named = {"label_dropout": 0.1, "antithetic": True} | _chosen(given, ("label_dropout", "antithetic"))
    if family is DIT:
        _refuse(given, ("null_class",), "a DiT")
        cache = given.get("cache_dir") or str(Path(given["output"]).parent / "cache")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dit = DiTPrediction(loaded, **named, **_chosen(given, ("variance_weight",)))
        return dit, *latent_sets(images, loaded, cache, given.get("random_flip", False), device)
    _refuse(given, ("variance_weight", "random_flip", "cache_dir"), "a UNet2D pipeline")
    objective = NoisePrediction(loaded, **named, **_chosen(given, ("null_class",)))
    return objective, *unet_sets(images, loaded, default=model is None)


def compute(objective: "Objective", forget: "SizedDataset", retain: "SizedDataset", given: dict[str, Any]) -> "Masks":
    """Return the masks that a run of sfron with these options and this seed would start with.

    With `mask_density` the most salient share of all weights instead.
    """
    from ...methods import SFRon
    from ...saliency.fisher import fisher
    from ...saliency.masks import density_masks
    from ...training.config import UnlearnConfig
    from ...training.trainer import UnlearnTrainer

    method = SFRon(**_chosen(given, MASK))
    with tempfile.TemporaryDirectory() as scratch:  # the trainer checks the data, and places the model
        config = UnlearnConfig.quiet(output_dir=scratch, seed=given["seed"])
        UnlearnTrainer(objective, config, method, forget, retain)
    if "mask_density" not in given:
        masks = method.compute_masks(objective, forget, retain, given["seed"])
        if masks is None:
            raise ValueError("there are no masks: the method is set to do without")
        return masks
    sizes: dict[str, Any] = dict(
        estimator=method.fisher, max_samples=method.fisher_samples, batch_size=method.fisher_batch_size
    )
    fishers = [fisher(objective, part, part is forget, seed=given["seed"], **sizes) for part in (forget, retain)]
    return density_masks(fishers[0], fishers[1], given["mask_density"])


def table(masks: "Masks", path: Path, top: int) -> str:
    """Say what was written, and which layers have the largest share of salient weights."""
    from ...evaluation.tables import markdown_table
    from ...saliency.layers import by_module

    rows = by_module(masks.table())
    shown = sorted(rows, key=lambda row: -row[2])[:top]
    cells = [[name, f"{share:.1%}", f"{weights:,}"] for name, weights, share in shown]
    rule = ", ".join(f"{k} {masks.metadata[k]}" for k in ("gamma", "density") if k in masks.metadata)
    counts = [json.loads(masks.metadata[part])["samples"] for part in ("forget", "retain")]
    return (
        f"{path}: {masks.density:.1%} of {sum(row[1] for row in rows):,} weights are salient "
        f"({rule}; Fishers of {counts[0]} forget and {counts[1]} retain samples)\n\n"
        f"{markdown_table(['layer', 'salient', 'weights'], cells)}"
        + (f"\n\n{len(rows) - len(shown)} more layers: --top {len(rows)}" if len(rows) > len(shown) else "")
    )


def as_json(masks: "Masks", path: Path) -> str:
    """Return {"masks", "density", "layers": rows of name, weights and share, "made_from"} as JSON."""
    values = {"masks": str(path), "density": masks.density, "layers": masks.table(), "made_from": masks.metadata}
    return json.dumps(values)


def _chosen(given: dict[str, Any], names: tuple[str, ...], **read: Any) -> dict[str, Any]:
    """Return the flags among `names` that were given, lists read by `read`."""
    return {n: read[n](given[n]) if n in read else given[n] for n in names if n in given}


def _refuse(given: dict[str, Any], names: tuple[str, ...], what: str) -> None:
    wrong = [name for name in names if name in given]
    if wrong:
        raise ValueError(f"--{wrong[0]} is not for {what}")


def _numbers(values: list[str]) -> list[int]:
    wrong = [value for value in values if not value.isdecimal()]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not a number: pipelines take positions as numbers")
    return [int(value) for value in values]


def _one_file(values: list[str]) -> str:
    if len(values) != 1:
        raise ValueError("--forget_indices of a classifier is one file, with a position a line")
    return values[0]
