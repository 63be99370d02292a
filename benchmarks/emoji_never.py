"""The negative control of attacks: what they find of objects that an emoji model never learnt.

    python benchmarks/emoji_never.py --judge FOLDER --data_dir FOLDER      # FOLDER of train_emoji_judge.py

What relearning takes here is what it should take of a forgotten object, and what an embedding finds here it made
itself. Beside it stands an object that the model knows (the ceiling). Finished attacks are kept in `--cache`.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

from attack_emoji import chosen_attacks, row_of
from emoji_forget import DRAWING
from emoji_pictures import CONTROLS


def subject_of(pipeline, target, samples: int):
    """A model and what attacks on it are after."""
    from hf_unlearn.attacks.base import Subject
    from hf_unlearn.families.latents import Drawing

    return Subject(pipeline, target, sampling=Drawing(**DRAWING), samples=samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", required=True, help="folder of benchmarks/train_emoji_judge.py")
    parser.add_argument("--model", help="folder of a pipeline; default the shipped one")
    parser.add_argument("--data_dir", default="", help="folder of STYLE_64.npz files; default: render from npm")
    parser.add_argument("--objects", nargs="+", default=["cactus", "octopus"], choices=list(CONTROLS))
    parser.add_argument("--known", default="rocket", help="an object that the model knows, for the ceiling")
    parser.add_argument("--attacks", nargs="+", default=["relearning_steps", "inversion", "soft_prefix"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--samples", type=int, default=36)
    parser.add_argument("--cache", default=f"{tempfile.gettempdir()}/emoji-never")
    parser.add_argument("--output", help="also write the metrics of each object to this JSON file")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    from train_emoji_judge import load_judge, never_target, object_target
    from transformers.utils import logging

    from hf_unlearn.attacks import run_attacks
    from hf_unlearn.attacks.running import Trial
    from hf_unlearn.evaluation import markdown_table
    from hf_unlearn.evaluation.emoji import EMOJI_SD
    from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    pipeline = load_text_to_image_pipeline(options.model or str(EMOJI_SD))
    judge = load_judge(options.judge)
    chosen = chosen_attacks(options.attacks)
    known = subject_of(pipeline, object_target(judge, options.known, options.data_dir), options.samples)
    rows, every = [], {}
    for thing in options.objects:
        never = subject_of(pipeline, never_target(judge, thing, options.data_dir), options.samples)
        found = run_attacks(chosen, Trial(never, known), options.cache, options.seeds, options.seeds[:1])
        every[thing] = {name: metric.as_dict() for name, metric in found.items()}
        rows += [row_of(name, metric, [thing], ("ceiling",)) for name, metric in found.items()]
        print(markdown_table(["never learnt", "attack", "found", "of each seed", f"{options.known}, known"], rows))
        if options.output:
            Path(options.output).write_text(json.dumps(every, indent=1) + "\n")


if __name__ == "__main__":
    main()
