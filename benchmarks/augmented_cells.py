"""The cells of benchmarks/augmentation.py: a classifier trained with or without variants, a model unlearned with few
retained images."""

import copy
import functools
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from augmented_sources import Source, source_of

from hf_unlearn import METHODS, UnlearnConfig, UnlearnTrainer, load_ddpm_pipeline, split_by_index
from hf_unlearn.augmentation import Slow, Variants, Variation, augment, find_slow_learnt, generator_of
from hf_unlearn.augmentation.pictures import pixels_of
from hf_unlearn.augmentation.retaining import blanks, repairing, standing_in
from hf_unlearn.augmentation.training import RATES, fit, train_early
from hf_unlearn.common.identity import file_digest
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.data.joining import Joined, seen_more
from hf_unlearn.data.pairs import labels_of, random_subset, subset
from hf_unlearn.evaluation.classification import accuracy, predictions
from hf_unlearn.evaluation.classifier_rows import classifier_figures
from hf_unlearn.training.recipes import train_classifier

EPOCHS = 10  # in which the elbow of a training lies
CHAIN = 20  # steps of the generator's whole chain
MODELS = ("resnet", "vit", "convnext", "swin")
ARMS = ("none", "all", "clusters", "random", "loss", "sam", "repeated", "clusters 5", "continued")
OUTER_STEPS, STAND_INS = 20, 120
FEW = ("few", "variants", "every class")
WHOLE = ("all retained", "seen more", "seen more, variants")


class Place(NamedTuple):
    """Where a cell finds its generator and its data, and keeps what is drawn."""

    generator: str
    cache: str
    images: int  # of which a classifier is trained
    data: str = "digits"  # or a folder of CIFAR-10
    judge: str = ""  # of CIFAR-10: the file of its weights

    @property
    def source(self) -> Source:
        return source_of(self.data, self.judge)


@functools.cache
def generator_at(folder: str) -> Any:
    """The generator of a folder."""
    return generator_of(load_ddpm_pipeline(folder), Variation(num_inference_steps=CHAIN), Path(folder).name)


def _held_out(place: Place) -> Any:
    """Images that neither a classifier nor the generator was trained on."""
    parts = place.source.parts
    return Joined(parts["test"], parts["validation"])


def few(place: Place, seed: int) -> Any:
    """The training images of the classifiers of a seed."""
    return subset(place.source.parts["train"], _order(place, seed)[: place.images])


def _rest(place: Place, seed: int) -> Any:
    """Training images that the classifiers of `seed` do not see, to choose learning rates on."""
    return subset(place.source.parts["train"], _order(place, seed)[place.images :])


def _order(place: Place, seed: int) -> list[int]:
    train = place.source.parts["train"]
    return torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tolist()


def _varied(
    place: Place, data: Any, positions: list[int], factor: int, strength: Any, **more: Any
) -> tuple[Variants, ArrayDataset]:
    """Draw variants, and read them back as the data are kept in memory."""
    with tempfile.TemporaryDirectory() as folder:
        made = augment(
            *(data, positions, generator_at(place.generator), folder, factor, strength, place.source.judge),
            names=dict(enumerate(place.source.names)),
            cache_dir=place.cache,
            **more,
        )
        pixels = [pixels_of((made.folder / row["file_name"]).read_bytes(), place.source.channels) for row in made.rows]
    return made, ArrayDataset(torch.stack(pixels), torch.tensor([row["label"] for row in made.rows]))


@functools.lru_cache(maxsize=2)
def early_of(place: Place, name: str, optimizer: str, rate: float, seed: int) -> tuple[Any, int]:
    """(a classifier at the elbow of its training error, the epoch)."""
    source = place.source
    values: dict[str, Any] = {"learning_rate": rate, "per_device_train_batch_size": source.batch}
    early, epoch, _ = train_early(
        *(lambda: source.build[name](seed), few(place, seed)),
        *(EPOCHS * source.longer.get(name, 1), seed, optimizer),
        **values,
    )
    return early, epoch


def trained(place: Place, name: str, optimizer: str, rate: float, seed: int, arm: str) -> dict[str, Any]:
    """Train one classifier as an arm of the comparison says, and read held-out images with it."""
    started = time.process_time()
    source, data, made, epoch = place.source, few(place, seed), None, 0
    train, model = data, source.build[name](seed)
    if arm not in ("none", "sam"):
        early, epoch = early_of(place, name, optimizer, rate, seed)
        slow = _slow(arm, early, data, seed)
        if arm == "repeated":
            train = seen_more(data, slow.positions, 2)
        else:
            made, variants = _varied(place, data, slow.positions, 5 if arm == "clusters 5" else 2, 0.5)
            train = Joined(data, variants)
        model = copy.deepcopy(early) if arm == "continued" else model
    prepared = time.process_time()
    rho = 0.05 if arm == "sam" else 0.0
    fit(model, source.training(train), seed, optimizer, rho, **_length(source, name, rate))
    ended = time.process_time()
    return {
        "accuracy": accuracy(predictions(model, _held_out(place))).number,
        "images": len(train),
        "epoch": epoch,
        "drawn": 0 if made is None else made.drawn,
        "refused": 0 if made is None else sum(made.refused.values()),
        "seconds": round(ended - prepared, 1),
        "prepared": round(prepared - started, 1),
    }


def _slow(arm: str, early: Any, data: Any, seed: int) -> Slow:
    found = find_slow_learnt(early, data, "all" if arm == "all" else "clusters", seed=seed)
    if arm in ("random", "loss"):
        return find_slow_learnt(early, data, arm, found.share, seed)
    return found


def rate_of(place: Place, name: str, optimizer: str, rate: float) -> dict[str, Any]:
    """Accuracy at a learning rate, on training images that no arm uses, from a seed that no arm has."""
    source = place.source
    model = source.build[name](1000)
    fit(model, source.training(few(place, 1000)), 1000, optimizer, **_length(source, name, rate))
    return {"accuracy": accuracy(predictions(model, subset(_rest(place, 1000), range(500)))).number}


def _length(source: Source, name: str, rate: float) -> dict[str, Any]:
    """What says how a training on a few images goes."""
    longer = source.longer.get(name, 1)
    steps = {"max_steps": longer * source.steps, "warmup_steps": longer * source.warmup}
    return {"learning_rate": rate, "per_device_train_batch_size": source.batch, **steps}


def rates() -> list[tuple[str, str, float]]:
    """What `rate_of` tries: three rates around the default of each optimizer."""
    return [(n, o, r) for n in MODELS for o, middle in RATES.items() for r in (middle / 3, middle, middle * 3)]


# ---- unlearning ----------------------------------------------------------------------------------
@functools.lru_cache(maxsize=1)
def _models(place: Place, seed: int, label: int | None) -> tuple[Any, Any, Any, Any]:
    """(original, retrained, forget set, retain set); a class or a random tenth of the training images is forgotten."""
    source = place.source
    train = source.parts["train"]
    found = [i for i, own in enumerate(labels_of(train) or []) if own == label]
    forget, retain = split_by_index(train, random_subset(len(train), 0.1, seed) if label is None else found)
    models = []
    for data in (train, retain):
        models.append(source.build["resnet"](seed))
        train_classifier(models[-1], source.training(data), seed, max_steps=source.original_steps)
    return *models, forget, retain


def _left(retain: Any, share: float, seed: int) -> Any:
    order = torch.randperm(len(retain), generator=torch.Generator().manual_seed(seed + 1)).tolist()
    return subset(retain, sorted(order[: max(1, round(share * len(retain)))]))


def _kept(
    place: Place, original: Any, retain: Any, share: float, arm: str, seed: int, label: int | None
) -> tuple[Any, int]:
    """(what the run retains, how many images stand in)."""
    if share == 1:
        if arm in ("original", "all retained"):
            return retain, 0
        slow = find_slow_learnt(original, retain, seed=seed, classes=[own for own in range(10) if own != label])
        made = None if arm == "seen more" else _varied(place, retain, slow.positions, 2, 0.5)[1]
        return repairing(retain, slow, made, 3), 0 if made is None else len(made)
    left = _left(retain, share, seed)
    if arm == "few":
        return left, 0
    if arm == "variants":
        made = _varied(place, left, list(range(len(left))), 1 + -(-STAND_INS // len(left)), (0.3, 0.5, 0.7))[1]
    else:
        stay = [own for own in range(10) if own != label]
        grey = blanks(generator_at(place.generator), stay)
        made = _varied(place, grey, list(range(len(stay))), 1 + STAND_INS // 10, 1.0, new_images=True)[1]
    return standing_in(left, made), len(made)


def unlearned(
    place: Place, method: str, seed: int, share: float, arm: str, label: int | None = None
) -> dict[str, Any]:
    """Unlearn with `share` of the retained images, as an arm says, and measure on all of them.

    Args:
        label: the class that is forgotten; None forgets a random tenth. Test images are then of the other classes.
    """
    original, retrained, forget, retain = _models(place, seed, label)
    kept, stand_ins = _kept(place, original, retain, share, arm, seed, label)
    model = copy.deepcopy(original)
    parts = place.source.parts
    if arm != "original":
        with tempfile.TemporaryDirectory() as folder:
            config = UnlearnConfig.quiet(output_dir=folder, max_steps=OUTER_STEPS, seed=seed)
            chosen, holdout = METHODS[method](), parts["validation"] if label is None else None
            trainer = UnlearnTrainer(model, config, chosen, forget, kept, holdout_dataset=holdout)
            trainer.train()
    probes = _varied(place, forget, list(range(len(forget))), 2, 0.5)[1]
    stay = [i for i, own in enumerate(labels_of(parts["test"]) or []) if own != label]
    sets = {"forget": forget, "retain": retain, "test": subset(parts["test"], stay), "forget_variants": probes}
    found = classifier_figures(model, sets, retrained, seed=seed)
    names = ("retain_accuracy", "test_accuracy", "forget_accuracy", "forget_variants_accuracy", "average_gap")
    return {"stand_ins": stand_ins, "classes": len(set(labels_of(kept) or [])), **{n: found[n].number for n in names}}


@functools.cache
def digest(path: str) -> str:
    """Digest of a file, or of the weights of the generator in a folder, for the keys of cells."""
    weights = Path(path) if Path(path).is_file() else next(Path(path, "unet").glob("*.safetensors"))
    return str(file_digest(weights)[1])[:12]
