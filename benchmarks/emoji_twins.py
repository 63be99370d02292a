"""How far an unlearned emoji model is from its twin that never saw what was forgotten.

    python benchmarks/emoji_twins.py --model emoji2 --twins emoji2-twin emoji2-twin-1 --judge emoji-judge

Models draw the same captions from the same noise, and the judge says what it takes the pictures for. AGJS is the
Jensen-Shannon divergence of the mean class distributions, averaged over captions, between the unlearned model and the
twins; IGJS is the same between two twins of different seeds, so as far as chance alone goes (arXiv 2203.12817, there
of classifiers). `floor` is a twin beside itself from other noise: what a finite number of pictures reads of two equal
models.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path

import torch
from emoji_forget import DRAWING, target_of
from torch import Tensor

from hf_unlearn.attacks.pictures import ask
from hf_unlearn.evaluation import frechet_distance
from hf_unlearn.evaluation.classification import Predictions, js_divergence, kl_divergence
from hf_unlearn.evaluation.emoji import OBJECTS, STYLES, EmojiClassifier, prompt_of
from hf_unlearn.families.latents import Drawing

HEADS = {"style": 0, "object": 1}
OTHER = " (other noise)"


def pairs_of(target: tuple[str, str], unseen: set[str]) -> tuple[list, list]:
    """((style, object) of what was forgotten, and of what stayed), without those that name anything else `unseen`.

    A twin may lack more than the target, a style beside an object: captions of that say nothing about the target.
    """
    every = [(s, o) for s in STYLES for o in OBJECTS if not (unseen - {target[1]}) & {s, o}]
    return [pair for pair in every if target[1] in pair], [pair for pair in every if target[1] not in pair]


def drawn_by(pipelines: dict[str, Callable], twins: list[str], parts: dict, drawing: Drawing) -> dict:
    """part -> model -> images (N, 3, 64, 64), those of one style and object after the other.

    Args:
        pipelines: what loads each model. parts: (its (style, object) pairs, how many pictures of each).
    """
    drawn: dict[str, dict[str, Tensor]] = {part: {} for part in parts}
    for name, load in pipelines.items():
        pipeline = load()
        for part, (pairs, count) in parts.items():
            asked = [prompt_of(*pair) for pair in pairs for _ in range(count)]
            drawn[part][name] = ask(pipeline, asked, drawing, 0)
            if name in twins:
                drawn[part][name + OTHER] = ask(pipeline, asked, drawing, 1)
    return drawn


@torch.no_grad()
def mean_predictions(judge: EmojiClassifier, images: Tensor, head: int, groups: int) -> Predictions:
    """The judge's mean class distribution over each of `groups` equal runs of images (N, 3, 64, 64), as logits.

    Raises:
        ValueError: the images cannot be shared evenly.
    """
    if len(images) % groups or not len(images):
        raise ValueError(f"{len(images)} images cannot be shared evenly by {groups} captions")
    shares = torch.cat([judge(part)[head].double().softmax(1) for part in images.split(256)])
    means = shares.view(groups, -1, shares.shape[1]).mean(1)
    return Predictions(means.log().float(), torch.zeros(groups, dtype=torch.long))


def distances(judge: EmojiClassifier, one: Tensor, other: Tensor, head: int, groups: int) -> dict[str, float]:
    """Between the images of two models, of the same captions: js and kl (nats, `other` is the reference), frechet.

    The Frechet distance is that of the judge's features; it is larger for fewer pictures.
    """
    found, reference = (mean_predictions(judge, images, head, groups) for images in (one, other))
    return {
        "js": js_divergence(found, reference).number,
        "kl": kl_divergence(found, reference).number,
        "frechet": frechet_distance(judge, one, other),
    }


def compared(pictures: dict[str, Tensor], twins: list[str], judge, head: int, groups: int) -> dict[str, dict]:
    """Distances by name of the pair. `pictures` holds those of each model, of a twin under `OTHER` noise too."""
    models = [name for name in pictures if name not in twins and not name.endswith(OTHER)]
    named = {f"{model} to {twin}": (model, twin) for model in models for twin in twins}
    named |= {f"IGJS: {one} to {other}": (one, other) for one, other in combinations(twins, 2)}
    named |= {f"floor: {twin} to itself": (twin + OTHER, twin) for twin in twins}
    return {name: distances(judge, *(pictures[side] for side in pair), head, groups) for name, pair in named.items()}


def read_as(judge, images: Tensor, head: int, names: tuple[str, ...]) -> dict[str, float]:
    """The shares of the classes that the judge takes images for, the largest three."""
    with torch.no_grad():
        read = torch.cat([judge(part)[head].argmax(1) for part in images.split(256)])
    counts = read.bincount(minlength=len(names)).double() / len(images)
    return {names[i]: round(counts[i].item(), 3) for i in counts.topk(3).indices.tolist() if counts[i]}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What is compared, and where it is kept: shared with emoji_words.py."""
    parser.add_argument("--model", required=True, help="folder of train_emoji2.py: the original")
    parser.add_argument("--judge", required=True, help="folder of train_emoji_judge.py")
    parser.add_argument("--target", type=target_of, default=("object", "rocket"), metavar="KIND:NAME")
    parser.add_argument("--rows", nargs="+", default=["sfron, no rate"], help="rows of emoji_forget.py")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of unlearning")
    parser.add_argument("--cache", default=f"{tempfile.gettempdir()}/emoji-twins")
    parser.add_argument("--output", help="also write everything to this JSON file")


def loaders(options: argparse.Namespace, twins: list[str]) -> dict[str, Callable]:
    """What loads the original, each unlearned model (it is trained once) and each twin, by its name in the tables."""
    from attack_emoji import unlearned

    from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline

    cache = Path(options.cache) / Path(options.model).resolve().name
    found: dict[str, Callable] = {"original": partial(load_text_to_image_pipeline, options.model)}
    for row in options.rows:
        for seed in options.seeds:
            found[f"{row}, seed {seed}"] = partial(unlearned, options.model, row, options.target, seed, cache)
    return found | {Path(folder).name: partial(load_text_to_image_pipeline, folder) for folder in twins}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser)
    parser.add_argument("--twins", required=True, nargs="+", help="folders of train_emoji2.py --without_object ...")
    parser.add_argument("--forgotten", type=int, default=36, help="pictures of each forgotten style and object")
    parser.add_argument("--kept", type=int, default=3, help="pictures of each retained style and object")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    from train_emoji_judge import JUDGED_OBJECTS, JUDGED_STYLES, load_judge
    from transformers.utils import logging

    from hf_unlearn.common.untrusted import read_json
    from hf_unlearn.evaluation import markdown_table

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    judge = load_judge(options.judge)
    head, names = HEADS[options.target[0]], (JUDGED_STYLES, JUDGED_OBJECTS)[HEADS[options.target[0]]]
    twins = [Path(folder).name for folder in options.twins]
    settings = [read_json(Path(folder) / "report.json")["settings"] for folder in options.twins]
    unseen = {one[name] for one in settings for name in ("without_object", "without_style") if one[name]}
    if options.target[1] not in unseen:
        raise ValueError(f"the twins know {options.target[1]!r}: train them without it")
    forgotten, kept = pairs_of(options.target, unseen)
    parts = {"forgotten": (forgotten, options.forgotten), "kept": (kept, options.kept)}
    drawn = drawn_by(loaders(options, options.twins), twins, parts, Drawing(**DRAWING))
    found, rows = {}, []
    for part, (pairs, _) in parts.items():
        table = compared(drawn[part], twins, judge, head, len(pairs))
        shown = {name: read_as(judge, images, head, names) for name, images in drawn[part].items()}
        found[part] = {"distances": table, "read as": shown, "pictures": len(drawn[part]["original"])}
        rows += [
            [part, name, *(f"{values[k]:.3f}" for k in ("js", "kl", "frechet"))] for name, values in table.items()
        ]
    print(json.dumps(found["forgotten"]["read as"], indent=1))
    print(markdown_table(["captions", "models", "JS", "KL", "Frechet distance"], rows))
    if options.output:
        Path(options.output).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
