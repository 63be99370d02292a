"""The cells of benchmarks/augmentation.py: a classifier trained with or without variants, a model unlearned with few
retained images."""

import copy
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    PreTrainedModel,
    SwinConfig,
    SwinForImageClassification,
)

from hf_unlearn import METHODS, UnlearnConfig, UnlearnTrainer, load_ddpm_pipeline, split_by_index
from hf_unlearn.augmentation import Slow, Variants, Variation, augment, find_slow_learnt, generator_of
from hf_unlearn.augmentation.pictures import pixels_of
from hf_unlearn.augmentation.retaining import blanks, repairing, standing_in
from hf_unlearn.augmentation.training import RATES, fit, train_early
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.data.joining import Joined, seen_more
from hf_unlearn.data.pairs import labels_of, random_subset, subset
from hf_unlearn.evaluation.classification import accuracy, predictions
from hf_unlearn.evaluation.classifier_rows import classifier_figures
from hf_unlearn.evaluation.judge import digits_judge
from hf_unlearn.training.recipes import build_classifier, digits_splits, train_classifier

STEPS, BATCH, EPOCHS = 100, 32, 10  # of the training of a classifier; epochs in which its elbow lies
CHAIN = 20  # steps of the generator's whole chain
ARMS = ("none", "all", "clusters", "random", "loss", "sam", "repeated", "clusters 5", "continued")
ORIGINAL_STEPS, OUTER_STEPS, STAND_INS = 300, 20, 120
FEW = ("few", "variants", "every class")
WHOLE = ("all retained", "seen more", "seen more, variants")


def digits_convnext() -> PreTrainedModel:
    """Build a ConvNeXt with 0.08M weights for 8x8 grey images, ten classes."""
    config = ConvNextConfig(num_channels=1, patch_size=2, num_stages=2, hidden_sizes=[32, 64], depths=[2, 2])
    config.num_labels = 10
    return ConvNextForImageClassification(config)


def digits_swin() -> PreTrainedModel:
    """Build a Swin with 0.08M weights for 8x8 grey images, ten classes."""
    sizes: dict[str, Any] = {"embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 2}
    config = SwinConfig(image_size=8, patch_size=2, num_channels=1, mlp_ratio=2.0, **sizes)
    config.num_labels = 10
    return SwinForImageClassification(config)


BUILD: dict[str, Callable[[int], PreTrainedModel]] = {
    "resnet": lambda seed: build_classifier("digits_resnet", seed),
    "vit": lambda seed: build_classifier("digits_vit", seed),
    "convnext": lambda seed: _seeded(digits_convnext, seed),
    "swin": lambda seed: _seeded(digits_swin, seed),
}


def _seeded(build: Callable[[], PreTrainedModel], seed: int) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


class Place(NamedTuple):
    """Where a cell finds its generator and keeps what is drawn."""

    generator: str
    cache: str
    images: int  # of which a classifier is trained


@functools.cache
def _generator(folder: str) -> Any:
    return generator_of(load_ddpm_pipeline(folder), Variation(num_inference_steps=CHAIN), "digits")


@functools.cache
def _parts() -> tuple[Any, Any]:
    """(training images, images that neither a classifier nor the generator was trained on)."""
    parts = digits_splits()
    return parts["train"], Joined(parts["test"], parts["validation"])


def _few(count: int, seed: int) -> Any:
    train, _ = _parts()
    return subset(train, torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:count].tolist())


def _rest(count: int, seed: int) -> Any:
    """Training images that the classifiers of `seed` do not see, to choose learning rates on."""
    train, _ = _parts()
    return subset(train, torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[count:].tolist())


def _varied(
    place: Place, data: Any, positions: list[int], factor: int, strength: Any, **more: Any
) -> tuple[Variants, ArrayDataset]:
    """Draw variants, and read them back as the digits are kept in memory."""
    with tempfile.TemporaryDirectory() as folder:
        made = augment(
            *(data, positions, _generator(place.generator), folder, factor, strength, digits_judge()),
            names={label: str(label) for label in range(10)},
            cache_dir=place.cache,
            **more,
        )
        pixels = [pixels_of((made.folder / row["file_name"]).read_bytes(), 1) for row in made.rows]
    return made, ArrayDataset(torch.stack(pixels), torch.tensor([row["label"] for row in made.rows]))


@functools.lru_cache(maxsize=2)
def _early(name: str, optimizer: str, rate: float, seed: int, count: int) -> tuple[Any, int]:
    data = _few(count, seed)
    early, epoch, _ = train_early(
        lambda: BUILD[name](seed), data, EPOCHS, seed, optimizer, learning_rate=rate, per_device_train_batch_size=BATCH
    )
    return early, epoch


def trained(place: Place, name: str, optimizer: str, rate: float, seed: int, arm: str) -> dict[str, Any]:
    """Train one classifier as an arm of the comparison says, and read held-out images with it."""
    started = time.process_time()
    data, made, epoch = _few(place.images, seed), None, 0
    train, model = data, BUILD[name](seed)
    if arm not in ("none", "sam"):
        early, epoch = _early(name, optimizer, rate, seed, place.images)
        slow = _slow(arm, early, data, seed)
        if arm == "repeated":
            train = seen_more(data, slow.positions, 2)
        else:
            made, variants = _varied(place, data, slow.positions, 5 if arm == "clusters 5" else 2, 0.5)
            train = Joined(data, variants)
        model = copy.deepcopy(early) if arm == "continued" else model
    prepared = time.process_time()
    rho = 0.05 if arm == "sam" else 0.0
    values: dict[str, Any] = {"learning_rate": rate, "max_steps": STEPS, "per_device_train_batch_size": BATCH}
    fit(model, train, seed, optimizer, rho, warmup_steps=10, **values)
    ended = time.process_time()
    return {
        "accuracy": accuracy(predictions(model, _parts()[1])).number,
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
    data, model = _few(place.images, 1000), BUILD[name](1000)
    fit(
        *(model, data, 1000, optimizer),
        learning_rate=rate,
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        warmup_steps=10,
    )
    return {"accuracy": accuracy(predictions(model, subset(_rest(place.images, 1000), range(500)))).number}


def rates() -> list[tuple[str, str, float]]:
    """What `rate_of` tries: three rates around the default of each optimizer."""
    return [(n, o, r) for n in BUILD for o, middle in RATES.items() for r in (middle / 3, middle, middle * 3)]


# ---- unlearning ----------------------------------------------------------------------------------
@functools.lru_cache(maxsize=1)
def _models(seed: int) -> tuple[Any, Any, Any, Any]:
    """(original, retrained, forget set, retain set); a random tenth of the training images is forgotten."""
    train, _ = _parts()
    forget, retain = split_by_index(train, random_subset(len(train), 0.1, seed))
    models = []
    for data in (train, retain):
        models.append(build_classifier("digits_resnet", seed))
        train_classifier(models[-1], data, seed, max_steps=ORIGINAL_STEPS)
    return *models, forget, retain


def _left(retain: Any, share: float, seed: int) -> Any:
    order = torch.randperm(len(retain), generator=torch.Generator().manual_seed(seed + 1)).tolist()
    return subset(retain, sorted(order[: max(1, round(share * len(retain)))]))


def _kept(place: Place, original: Any, retain: Any, share: float, arm: str, seed: int) -> tuple[Any, int]:
    """(what the run retains, how many images stand in)."""
    if share == 1:
        if arm in ("original", "all retained"):
            return retain, 0
        slow = find_slow_learnt(original, retain, seed=seed)
        made = None if arm == "seen more" else _varied(place, retain, slow.positions, 2, 0.5)[1]
        return repairing(retain, slow, made, 3), 0 if made is None else len(made)
    left = _left(retain, share, seed)
    if arm == "few":
        return left, 0
    if arm == "variants":
        made = _varied(place, left, list(range(len(left))), 1 + -(-STAND_INS // len(left)), (0.3, 0.5, 0.7))[1]
    else:
        grey = blanks(_generator(place.generator), range(10))
        made = _varied(place, grey, list(range(10)), 1 + STAND_INS // 10, 1.0, new_images=True)[1]
    return standing_in(left, made), len(made)


def unlearned(place: Place, method: str, seed: int, share: float, arm: str) -> dict[str, Any]:
    """Unlearn with `share` of the retained images, as an arm says, and measure on all of them."""
    original, retrained, forget, retain = _models(seed)
    kept, stand_ins = _kept(place, original, retain, share, arm, seed)
    model = copy.deepcopy(original)
    parts = digits_splits()
    if arm != "original":
        with tempfile.TemporaryDirectory() as folder:
            config = UnlearnConfig.quiet(output_dir=folder, max_steps=OUTER_STEPS, seed=seed)
            chosen = METHODS[method]()
            trainer = UnlearnTrainer(model, config, chosen, forget, kept, holdout_dataset=parts["validation"])
            trainer.train()
    probes = _varied(place, forget, list(range(len(forget))), 2, 0.5)[1]
    sets = {"forget": forget, "retain": retain, "test": parts["test"], "forget_variants": probes}
    found = classifier_figures(model, sets, retrained, seed=seed)
    names = ("retain_accuracy", "test_accuracy", "forget_accuracy", "forget_variants_accuracy", "average_gap")
    return {"stand_ins": stand_ins, "classes": len(set(labels_of(kept) or [])), **{n: found[n].number for n in names}}


def digest(path: str) -> str:
    """Digest of a generator's weights, for the keys of cells."""
    from hf_unlearn.common.identity import file_digest

    return str(file_digest(next(Path(path, "unet").glob("*.safetensors")))[1])[:12]
