"""Attack emoji models that forgot an object: how much of it comes back, by attack and by row of emoji_forget.py.

    python benchmarks/attack_emoji.py --data_dir FOLDER      # or without it: pictures rendered from npm

Every attack runs from each seed on the unlearned model, and from the first seed on the original (the ceiling) and for
an object that stayed (the positive control). What was computed is kept in `--cache`, so that a killed run goes on.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from emoji_forget import DRAWING, LORA, concept_of, trained
from emoji_pictures import augmented, load_emoji

KEPT = "castle"  # the positive control


def pictures_of(data_dir: str, thing: str, count: int):
    """(images (count, 3, 64, 64) in [-1, 1] of an object, turned and moved a little; their captions)."""
    import torch

    from hf_unlearn.evaluation.emoji import OBJECTS, STYLES, prompt_of

    images, styles, things = load_emoji(data_dir or None)
    own = (things == OBJECTS.index(thing)).nonzero().flatten()
    chosen = own[torch.arange(count) % len(own)]
    captions = tuple(prompt_of(STYLES[style], thing) for style in styles[chosen])
    return augmented(images[chosen], torch.Generator().manual_seed(0)), captions


def unlearned(model: str, row: str, thing: str, cache: Path):
    """The pipeline of a row of emoji_forget.py, from seed 0; trained once and kept in `cache`."""
    from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline

    folder = cache / f"{row}-{thing}".replace(",", "").replace(" ", "-")
    if not (folder / "model_index.json").exists():
        with tempfile.TemporaryDirectory() as scratch:
            pipeline, _, seconds = trained(model, row, "object", thing, 0, None, scratch)
        print(f"{row}: unlearned in {seconds:.0f} s", flush=True)
        if row in LORA:  # the pipeline's files have no adapter
            return pipeline
        pipeline.save_pretrained(folder)
    return load_text_to_image_pipeline(str(folder))


def trial_of(model: str, data_dir: str, row: str, thing: str, cache: Path, samples: int):
    """The unlearned model, the original and an object that stayed, read by the shipped classifier."""
    import torch

    from hf_unlearn.attacks.readers import ClassifierReader
    from hf_unlearn.attacks.trials import text_to_image_trial
    from hf_unlearn.evaluation.emoji import OBJECTS, EmojiClassifier
    from hf_unlearn.families.latents import Drawing
    from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline

    judge = EmojiClassifier.from_pretrained(Path(model) / "judge", use_safetensors=True, torch_dtype=torch.float32)
    judge.eval()
    (concept, _), (kept, _) = concept_of("object", thing), concept_of("object", KEPT)
    retained = [p for p in concept_of("object", thing)[1] if p not in kept.prompts][::6] + list(kept.prompts)
    trial = text_to_image_trial(
        unlearned(model, row, thing, cache),
        load_text_to_image_pipeline(model),
        concept,
        retained,
        cache / "drawn",
        Drawing(**DRAWING),
        *pictures_of(data_dir, thing, 20),
        kept=kept,
        reader_of=lambda one: ClassifierReader(judge, OBJECTS.index(one.name), 1, "the emoji classifier"),
        samples=samples,
    )
    images, captions = pictures_of(data_dir, KEPT, 20)
    positive = replace(trial.positive, target=replace(trial.positive.target, images=images, captions=captions))
    return replace(trial, positive=positive)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of benchmarks/train_emoji_sd.py; default the shipped one")
    parser.add_argument("--data_dir", default="", help="folder of STYLE_64.npz files; default: render from npm")
    parser.add_argument("--rows", nargs="+", default=["sfron", "sfron, no rate"], help="rows of emoji_forget.py")
    parser.add_argument("--object", default="rocket")
    parser.add_argument("--attacks", nargs="+", default=["soft_prefix", "inversion", "relearning_steps"])
    parser.add_argument("--suite", default="full", choices=["quick", "full"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--samples", type=int, default=36)
    parser.add_argument("--cache", default=f"{tempfile.gettempdir()}/attack-emoji")
    parser.add_argument("--output", help="also write the metrics of each row to this JSON file")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    from transformers.utils import logging

    from hf_unlearn.attacks import run_attacks, suite_of
    from hf_unlearn.evaluation import markdown_table
    from hf_unlearn.evaluation.emoji import EMOJI_SD
    from hf_unlearn.evaluation.metric import share_text

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    model, cache = options.model or str(EMOJI_SD), Path(options.cache)
    chosen = [
        a for a in suite_of("text_to_image", options.suite) if a.metric.removeprefix("recovered_") in options.attacks
    ]
    rows, every = [], {}
    for row in options.rows:
        trial = trial_of(model, options.data_dir, row, options.object, cache, options.samples)
        start = time.perf_counter()
        found = run_attacks(chosen, trial, cache / "found", options.seeds, options.seeds[:1])
        every[row] = {name: metric.as_dict() for name, metric in found.items()}
        for name, metric in found.items():
            shown = (
                [f"{metric.value:g}"] if name.startswith("relearning") else [share_text(metric.value, metric.samples)]
            )
            shown += [f"{metric.details[role]['value']:g}" for role in ("ceiling", "positive")]
            each = ", ".join(f"{value:.3g}" for value in metric.details["per_seed"].values())
            rows.append([row, name, shown[0], each, *shown[1:]])
        print(f"{row}: attacked in {time.perf_counter() - start:.0f} s", flush=True)
        if options.output:
            Path(options.output).write_text(json.dumps(every, indent=1) + "\n")
    print(markdown_table(["row", "attack", "found", "of each seed", "ceiling", f"{KEPT}, retained"], rows))


if __name__ == "__main__":
    main()
