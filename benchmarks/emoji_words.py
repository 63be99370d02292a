"""Whether other words still draw what an emoji model forgot by name: synonyms, misspellings, other sentences.

    python benchmarks/emoji_words.py --model emoji2 --judge emoji-judge --twin emoji2-twin

Unlearning is told the plain captions of the target only. Every kind of caption of emoji_captions.py is then asked for,
and `wordings` of `hf-unlearn attack` beside it. A twin that never saw the target shows what words find in any model.
"""

import argparse
import json
import os
from pathlib import Path

from emoji_captions import KEPT_KINDS, KINDS, captions_of
from emoji_forget import DRAWING, prompts_of
from emoji_twins import HEADS, add_flags, loaders

ATTACK = "attack `wordings`"


def words_for(kind: str, target: tuple[str, str], count: int) -> list[str]:
    """`count` captions of a kind that name the target, evenly spread, or repeated where there are fewer."""
    from hf_unlearn.evaluation.emoji import OBJECTS, STYLES

    pairs = [(s, o) for s in STYLES for o in OBJECTS if target[1] in (s, o)]
    every = [caption for pair in pairs for caption in captions_of(kind, *pair)]
    return [every[i * len(every) // count] if len(every) > count else every[i % len(every)] for i in range(count)]


def kinds_for(target: tuple[str, str]) -> list[str]:
    """The kinds of caption that name the target: without a style none does where a style was forgotten."""
    return [kind for kind in (*KINDS, *KEPT_KINDS) if target[0] == "object" or kind != "no style"]


def shares(pipeline, reader, target: tuple[str, str], count: int) -> dict[str, list]:
    """By kind of caption, the share of `count` pictures that show the target, and its 95 % interval in words."""
    from hf_unlearn.attacks.base import Subject, Target
    from hf_unlearn.attacks.pictures import ask
    from hf_unlearn.attacks.wordings import Wordings
    from hf_unlearn.evaluation.metric import share_text
    from hf_unlearn.families.latents import Drawing

    drawing = Drawing(**DRAWING)
    read = {}
    for kind in kinds_for(target):
        images = ask(pipeline, words_for(kind, target, count), drawing, 0)
        read[kind] = reader(images).double().mean().item()
    plain = words_for("plain", target, prompts_of(target[0]))
    subject = Subject(pipeline, Target(target[1], tuple(plain), images, reader), sampling=drawing, samples=count)
    read[ATTACK] = Wordings().attack(subject, 0).share
    return {kind: [share, share_text(share, count)] for kind, share in read.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser)
    parser.add_argument("--twin", help="folder of train_emoji2.py --without_object ...")
    parser.add_argument("--samples", type=int, default=36, help="pictures of each kind of caption")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    from train_emoji_judge import JUDGED_OBJECTS, JUDGED_STYLES, NAME, load_judge
    from transformers.utils import logging

    from hf_unlearn.attacks.readers import ClassifierReader
    from hf_unlearn.evaluation import markdown_table

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    head = HEADS[options.target[0]]
    number = (JUDGED_STYLES, JUDGED_OBJECTS)[head].index(options.target[1])
    reader = ClassifierReader(load_judge(options.judge), number, head, NAME)
    models = loaders(options, [options.twin] if options.twin else [])
    found = {name: shares(load(), reader, options.target, options.samples) for name, load in models.items()}
    rows = [[kind, *(found[name][kind][1] for name in found)] for kind in (*kinds_for(options.target), ATTACK)]
    print(markdown_table(["asked by", *found], rows))
    if options.output:
        Path(options.output).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
