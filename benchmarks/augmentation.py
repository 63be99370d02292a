"""What targeted augmentation does on the digits and on CIFAR-10: prints the tables of docs/augmentation.md.

    python scripts/train_digits_ddpm.py --output_dir digits-train-part --train_part --max_train_steps 1500
    python benchmarks/augmentation.py rates --generator digits-train-part       learning rates, kept for the next one
    python benchmarks/augmentation.py training --generator digits-train-part
    python benchmarks/augmentation.py unlearning --generator digits-train-part
    python benchmarks/augmentation.py unlearning --generator digits-train-part --forget_class 3
    python benchmarks/augmentation.py picture --generator digits-train-part --output docs/augmentation_digits.png
    python benchmarks/augmentation.py quality --generator digits-train-part     how many samples are read right
    python benchmarks/augmentation.py training --generator cifar-ddpm --data FOLDER --judge cifar-judge.safetensors \\
        --images 1000 --models resnet

A generator has seen training parts only, so that test images are new to it, too. Every cell is kept in --results: a
run that is killed goes on where it was, and a finished one only prints.
"""

import argparse
import functools
import inspect
from itertools import product
from pathlib import Path
from typing import Any

import augmented_cells
import augmented_sources
from augmented_cells import ARMS, FEW, MODELS, WHOLE, Place, digest, rate_of, rates, trained, unlearned
from cells import computed

from hf_unlearn.augmentation import drawing, retaining, sam, slow
from hf_unlearn.augmentation import training as training_of
from hf_unlearn.augmentation.generators import ClassGenerator, Generator, Variation
from hf_unlearn.common.imports import code_of
from hf_unlearn.common.keys import content_key
from hf_unlearn.evaluation.tables import interval, markdown_table, stamp

RESULTS = Path(__file__).parent / "results/augmentation.json"
COMMANDS = ("rates", "training", "unlearning", "picture", "quality")
SHARES = (0.01, 0.05, 0.1)
FIGURES = ("retain_accuracy", "test_accuracy", "forget_accuracy", "forget_variants_accuracy", "average_gap")


@functools.cache
def code() -> str:
    """Digest of the code of the cells and of what they take of the augmentation, without words: the name of a cell
    changes with it."""
    parts = (
        augmented_cells,
        augmented_sources,
        drawing,
        retaining,
        sam,
        slow,
        training_of,
        Generator,
        ClassGenerator,
        Variation,
    )
    return content_key([code_of(inspect.getsource(part)) for part in parts])


def key(kind: str, place: Place, *arguments: Any) -> str:
    """The name of a cell, with a hash of the generator, the arguments and the code that it runs."""
    drawn_by = "" if kind == "rate" else digest(place.generator)
    content = [drawn_by, place.images, *arguments, code()]
    if place.data != "digits":
        content += [Path(place.data).name, digest(place.judge)]
    return f"{kind} {' '.join(map(str, arguments))} {content_key(content, 8)}"


rate_key, trained_key, unlearned_key = (functools.partial(key, kind) for kind in ("rate", "trained", "unlearned"))


def best_rates(options: argparse.Namespace, place: Place) -> dict[tuple[str, str], float]:
    """The learning rate of each model and optimizer, found on images that no arm uses."""
    wanted = [(place, *one) for one in rates() if one[0] in options.models and one[1] in options.optimizers]
    found = computed(options.results, wanted, rate_key, rate_of, 1)
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for one in wanted:
        _, name, optimizer, rate = one
        seen = (found[rate_key(*one)]["accuracy"], -rate)
        best[name, optimizer] = max(best.get((name, optimizer), (-1.0, 0.0)), seen)
    return {place: -rate for place, (_, rate) in best.items()}


def training(options: argparse.Namespace, place: Place) -> str:
    """Table: a row for each model and optimizer, a column for each arm, and the differences of pairs."""
    chosen = best_rates(options, place)
    cases = [(name, optimizer, rate) for (name, optimizer), rate in chosen.items() if name in options.models]
    wanted = [(place, *case, seed, arm) for seed, case, arm in product(options.seeds, cases, options.arms)]
    found = computed(options.results, wanted, trained_key, trained, 1)

    def cell(case: tuple, arm: str, name: str = "accuracy") -> list[float]:
        return [found[trained_key(place, *case, seed, arm)][name] for seed in options.seeds]

    rows = [
        [f"{name}, {optimizer} {rate:.2g}"]
        + [interval([100 * a for a in cell((name, optimizer, rate), arm)], 1) for arm in options.arms]
        for name, optimizer, rate in cases
    ]
    pairs: dict[str, list[float]] = {arm: [] for arm in options.arms}
    for case, arm in product(cases, options.arms):
        pairs[arm] += [100 * (a - b) for a, b in zip(cell(case, arm), cell(case, "none"))]
    rows.append(["difference to none, all pairs", *(interval(pairs[arm], 2) for arm in options.arms)])
    for name, digits in (("images", 0), ("refused", 1), ("epoch", 1), ("seconds", 1)):
        every = {arm: [v for case in cases for v in cell(case, arm, name)] for arm in options.arms}
        rows.append([f"{name}, mean", *(f"{sum(v) / len(v):.{digits}f}" for v in every.values())])
    return markdown_table([f"accuracy %, {place.images} images", *options.arms], rows)


def unlearning(options: argparse.Namespace, place: Place) -> str:
    """Table: a row for each share of the retained images and arm."""
    cases = [(1.0, arm) for arm in ("original", *WHOLE)] + [(share, arm) for arm in FEW for share in SHARES]
    cases = [case for case in cases if case[1] in options.stand_ins or case[0] == 1]
    found = computed(
        options.results,
        [_unlearning(options, place, seed, *case) for seed, case in product(options.seeds, cases)],
        *(unlearned_key, unlearned, 1),
    )
    rows = []
    for share, arm in cases:
        cells = [found[unlearned_key(*_unlearning(options, place, seed, share, arm))] for seed in options.seeds]
        stand_ins = sum(one["stand_ins"] for one in cells) / len(cells)
        shown = [interval([(1 if name == "average_gap" else 100) * one[name] for one in cells], 2) for name in FIGURES]
        classes = "/".join(str(one["classes"]) for one in cells)
        rows.append([f"{share:.0%}", arm, f"{stand_ins:.0f}", classes, *shown])
    for arm in WHOLE[1:]:
        rows.append(["100%", f"{arm}: difference", "", "", *_differences(options, place, found, arm)])
    named = [name.replace("_", " ") for name in FIGURES]
    return markdown_table(["retained", "with", "images more", "classes", *named], rows)


def _unlearning(options: argparse.Namespace, place: Place, seed: int, share: float, arm: str) -> tuple:
    """What `unlearned` is called with. The class comes last and only if there is one: older cells have none."""
    label = () if options.forget_class is None else (options.forget_class,)
    return place, options.method, seed, share, arm, *label


def _differences(options: argparse.Namespace, place: Place, found: dict[str, Any], arm: str) -> list[str]:
    """The mean differences of an arm to the plain retain set, seed by seed, with their intervals."""
    shown = []
    for name in FIGURES:
        pairs = [
            [found[unlearned_key(*_unlearning(options, place, seed, 1.0, a))][name] for a in (arm, WHOLE[0])]
            for seed in options.seeds
        ]
        scale = 1 if name == "average_gap" else 100
        shown.append(interval([scale * (one - plain) for one, plain in pairs], 2))
    return shown


def picture(options: argparse.Namespace, place: Place) -> str:
    """Draw one slow-learnt image of each class beside its variants at four strengths."""
    import torch
    from augmented_cells import early_of, few, generator_at

    from hf_unlearn.augmentation import find_slow_learnt
    from hf_unlearn.augmentation.pictures import picture_at
    from hf_unlearn.evaluation.grids import save_grid

    data = few(place, 0)
    early, _ = early_of(place, "resnet", "adamw", 2e-3, 0)
    slow = find_slow_learnt(early, data)
    generator = generator_at(place.generator)
    worst = [max((i for i in slow.positions if slow.labels[i] == c), key=lambda i: slow.losses[i]) for c in range(10)]
    images = torch.stack([picture_at(data, i, generator.size, generator.channels) for i in worst])
    grids = {"slow-learnt": images[:, None]}
    for strength in (0.3, 0.5, 0.7, 1.0):
        grids[f"{strength:g}"] = generator.vary(images, list(range(10)), list(range(10)), strength)[:, None]
    save_grid(grids, place.source.names, [False] * 10, options.output)
    return options.output


def quality(options: argparse.Namespace, place: Place) -> str:
    """The share of new samples, and of variants of images, that the judge reads as what they were drawn for."""
    import torch
    from augmented_cells import few, generator_at

    from hf_unlearn.augmentation.pictures import picture_at
    from hf_unlearn.evaluation.generation import SamplingConfig, sample_classes
    from hf_unlearn.evaluation.metric import share_text

    generator, judge = generator_at(place.generator), place.source.judge
    new = sample_classes(generator.pipeline, list(range(10)), SamplingConfig(50, num_inference_steps=20))
    right = sum(int(one.argmax()) == i // 50 for i, one in enumerate(judge(new)))
    said = [f"new samples that the judge reads right: {share_text(right / 500, 500)}"]
    data = few(place, 0)
    images = torch.stack([picture_at(data, i, generator.size, generator.channels) for i in range(100)])
    classes = [int(data[i]["labels"]) for i in range(100)]
    for strength in (0.3, 0.5, 0.7, 1.0):
        read = judge(generator.vary(images, classes, list(range(100)), strength)).argmax(1).tolist()
        share = sum(one == c for one, c in zip(read, classes)) / 100
        said.append(f"variants at strength {strength:g}: {share_text(share, 100)}")
    read = judge(images).argmax(1).tolist()
    said.append(f"the images: {share_text(sum(one == c for one, c in zip(read, classes)) / 100, 100)}")
    return "\n".join(said)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--generator", required=True, help="folder of a class-conditional DDPM of the data")
    parser.add_argument("--data", default="digits", help="digits, or a folder of CIFAR-10 as parquet files")
    parser.add_argument("--judge", default="", help="of CIFAR-10: what benchmarks/cifar_judge.py wrote")
    parser.add_argument("--results", default=str(RESULTS), help="file of the kept cells")
    parser.add_argument("--cache", default="augmentation-cache", help="folder of what is drawn")
    parser.add_argument("--images", type=int, default=100, help="training images of a classifier")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--optimizers", nargs="+", choices=list(training_of.RATES), default=list(training_of.RATES))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--stand_ins", nargs="+", choices=FEW, default=list(FEW))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--method", default="sfron", help="how a model is unlearned")
    parser.add_argument("--forget_class", type=int, help="forget a class; by default a random tenth")
    parser.add_argument("--output", default="augmentation_digits.png", help="where the picture goes")
    options = parser.parse_args(argv)
    if options.data != "digits" and not Path(options.judge).is_file():
        parser.error("CIFAR-10 needs --judge, the file that benchmarks/cifar_judge.py writes")
    place = Place(options.generator, options.cache, options.images, options.data, options.judge)
    if options.command == "rates":
        text = "\n".join(
            f"{name}, {optimizer}: {r:.3g}" for (name, optimizer), r in best_rates(options, place).items()
        )
    else:
        text = globals()[options.command](options, place)
    print(f"{stamp('torch', 'transformers', 'diffusers')}\n\n{text}")


if __name__ == "__main__":
    main()
