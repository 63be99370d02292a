"""Attack emoji models that forgot an object or a style: how much comes back, by attack and by row of emoji_forget.py.

    python benchmarks/attack_emoji.py --data_dir FOLDER      # or without it: pictures rendered from npm

Every attack runs from each seed on the unlearned model, and from the first seed on the original (the ceiling) and for
an object or style that stayed (the positive control). What was computed is kept in `--cache`: a killed run goes on.
`--never cactus --judge FOLDER` adds the negative control, an object that no model learnt (train_emoji_judge.py).
`--figures 3` also gives UnlearnCanvas's figures of each model, `--pictures FOLDER` a picture of each target.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from attack_pictures import KeepingReader, draw_attacked, keep, kept_file
from emoji_forget import DRAWING, LORA, concept_of, judged, target_of, trained
from emoji_pictures import CONTROLS, augmented, check_emoji, load_emoji

FIGURES = ("UA", "IRA", "CRA")


def stayed_of(kind: str, name: str) -> str:
    """The positive control of a target: an object or a style that is neither forgotten nor the anchor."""
    from hf_unlearn.evaluation.emoji import OBJECTS, STYLES

    names = list(STYLES if kind == "style" else OBJECTS)
    number = names.index(name)
    taken = (name, names[(number + 1) % len(names)])  # of `concept_of`
    return "castle" if kind == "object" and "castle" not in taken else names[(number + 2) % len(names)]


def pictures_of(data_dir: str, kind: str, name: str, count: int):
    """(images (count, 3, 64, 64) in [-1, 1] of an object or style, turned and moved a little; their captions)."""
    import torch

    from hf_unlearn.evaluation.emoji import OBJECTS, STYLES, prompt_of

    images, styles, things = load_emoji(data_dir or None)
    numbers, names = (styles, STYLES) if kind == "style" else (things, OBJECTS)
    own = (numbers == names.index(name)).nonzero().flatten()
    chosen = own[torch.arange(count) % len(own)]
    captions = tuple(prompt_of(STYLES[s], OBJECTS[o]) for s, o in zip(styles[chosen], things[chosen]))
    return augmented(images[chosen], torch.Generator().manual_seed(0)), captions


def unlearned(model: str, row: str, target: tuple[str, str], seed: int, cache: Path):
    """The pipeline of a row of emoji_forget.py; trained once and kept in `cache`, an adapter merged."""
    from hf_unlearn.families import denoiser_of
    from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline
    from hf_unlearn.saving.adapters import merged_copy

    folder = cache / "-".join([row, *target, str(seed)]).replace(",", "").replace(" ", "-")
    if not (folder / "model_index.json").exists():
        with tempfile.TemporaryDirectory() as scratch:
            pipeline, _, seconds = trained(model, row, *target, seed, None, scratch)
        print(f"{row}: unlearned in {seconds:.0f} s", flush=True)
        if row in LORA:
            adapter = denoiser_of(pipeline)
            setattr(pipeline, adapter.part, merged_copy(adapter.network(pipeline)))
        pipeline.save_pretrained(folder)
    return load_text_to_image_pipeline(str(folder))


def trial_of(model: str, data_dir: str, pipeline, target: tuple[str, str], cache: Path, samples: int):
    """The unlearned model, the original and what stayed, read by the shipped classifier."""
    import torch

    from hf_unlearn.attacks.trials import text_to_image_trial
    from hf_unlearn.evaluation.emoji import OBJECTS, STYLES, EmojiClassifier
    from hf_unlearn.families.latents import Drawing
    from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline

    judge = EmojiClassifier.from_pretrained(Path(model) / "judge", use_safetensors=True, torch_dtype=torch.float32)
    judge.eval()
    kind, name = target
    stayed = stayed_of(kind, name)
    (concept, retained), (kept, _) = concept_of(kind, name), concept_of(kind, stayed)
    head, names = (0, STYLES) if kind == "style" else (1, OBJECTS)
    trial = text_to_image_trial(
        pipeline,
        load_text_to_image_pipeline(model),
        concept,
        [p for p in retained if p not in kept.prompts][::6] + list(kept.prompts),
        cache / "drawn",
        Drawing(**DRAWING),
        *pictures_of(data_dir, kind, name, 20),
        kept=kept,
        reader_of=lambda one: KeepingReader(judge, names.index(one.name), head, "the emoji classifier"),
        samples=samples,
    )
    images, captions = pictures_of(data_dir, kind, stayed, 20)
    positive = replace(trial.positive, target=replace(trial.positive.target, images=images, captions=captions))
    return replace(trial, positive=positive)


def attacked(attacks, trial, cache: Path, name: str, seeds: list[int]) -> dict:
    """The metrics of the attacks on one model; of each attack its first images are kept for the picture."""
    from hf_unlearn.attacks import run_attacks

    found = {}
    for attack in attacks:
        reader = trial.unlearned.target.reader
        reader.seen.clear()
        found |= run_attacks([attack], trial, cache / "found", seeds, seeds[:1])
        if reader.seen and not attack.counts_steps:
            keep(cache, name, attack.name, reader.seen[0])
    return found


def chosen_attacks(names: list[str], suite: str = "full") -> list:
    """The attacks of a suite on text-to-image models that are named, in the suite's order."""
    from hf_unlearn.attacks import suite_of
    from hf_unlearn.cli.attacks.attacking import short_name

    every = {short_name(attack): attack for attack in suite_of("text_to_image", suite)}
    for name in names:
        if name not in every:
            raise SystemExit(f"attack {name!r} is none of the suite {suite}: choose from {', '.join(every)}")
    return [attack for name, attack in every.items() if name in names]


def row_of(name: str, metric, more: list[str], roles=("ceiling", "positive", "negative")) -> list[str]:
    """One row of the table: what was found, from each seed, and by each control of `roles`."""
    from hf_unlearn.evaluation.metric import share_text

    steps = name.startswith("relearning")
    shown = f"{metric.value:g}" if steps else share_text(metric.value, metric.samples)
    found = (metric.details[role] for role in roles)
    controls = ["" if one is None else f"{one['value']:g}" for one in found]
    each = ", ".join(f"{value:.3g}" for value in metric.details["per_seed"].values())
    return [*more, name, shown, each, *controls]


def wide_rows(every: dict[str, dict], attacks: list[str]) -> list[list[str]]:
    """One row a model, of what the attacks found on it: its figures, then each attack, steps from each seed.

    Args:
        every: of each model, `TARGET|ROW|SEED`, the figures and metrics as `--output` has them.
    """
    from hf_unlearn.evaluation.metric import share_text

    rows = []
    for name, found in every.items():
        row = [*name.split("|"), *(f"{100 * found['figures'][key]:.1f}" for key in FIGURES if "figures" in found)]
        for attack in attacks:
            metric = found[attack]
            steps = ", ".join(f"{value:.3g}" for value in metric["details"]["per_seed"].values())
            counted = attack.startswith("relearning")
            row.append(steps if counted else share_text(metric["value"], metric["samples"]))
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of train_emoji_sd.py, _emoji2 or _emoji_flow; default the shipped one")
    parser.add_argument("--data_dir", default="", help="folder of STYLE_64.npz files; default: render from npm")
    parser.add_argument("--rows", nargs="+", default=["sfron", "sfron, no rate"], help="rows of emoji_forget.py")
    parser.add_argument("--targets", nargs="+", type=target_of, metavar="KIND:NAME", default=[("object", "rocket")])
    parser.add_argument("--unlearning_seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--never", choices=list(CONTROLS), help="an object that no model learnt: the negative control")
    parser.add_argument("--judge", help="folder of train_emoji_judge.py, which reads it")
    parser.add_argument("--attacks", nargs="+", default=["soft_prefix", "inversion", "relearning_steps"])
    parser.add_argument("--suite", default="full", choices=["quick", "full"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--samples", type=int, default=36)
    parser.add_argument("--figures", type=int, default=0, help="also UA, IRA and CRA from so many images a caption")
    parser.add_argument("--pictures", help="also draw FOLDER/attacked_NAME.png for each target")
    parser.add_argument("--cache", default=f"{tempfile.gettempdir()}/attack-emoji")
    parser.add_argument("--output", help="also write the metrics of each row to this JSON file")
    options = parser.parse_args()
    check_emoji(parser, options.data_dir)
    if (options.never is None) != (options.judge is None):
        parser.error("--never and --judge go together: the shipped classifier knows nothing that was never learnt")
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    from train_emoji_judge import load_judge, never_target
    from transformers.utils import logging

    from hf_unlearn.evaluation import markdown_table
    from hf_unlearn.evaluation.emoji import EMOJI_SD

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    model, cache = options.model or str(EMOJI_SD), Path(options.cache)
    chosen = chosen_attacks(options.attacks, options.suite)
    never = never_target(load_judge(options.judge), options.never, options.data_dir) if options.never else None
    rows, every = [], {}
    for target in options.targets:
        for row, seed in [(row, seed) for row in options.rows for seed in options.unlearning_seeds]:
            pipeline = unlearned(model, row, target, seed, cache)
            about, name = [":".join(target), row, str(seed)], "|".join([":".join(target), row, str(seed)])
            every[name] = {}
            if options.figures:
                path = cache / "figures" / f"{name}-{options.figures}.json"
                judging = partial(judged, pipeline, model, options.data_dir, *target, options.figures)
                every[name]["figures"] = kept_file(path, judging)
            start = time.perf_counter()
            trial = trial_of(model, options.data_dir, pipeline, target, cache, options.samples)
            if never is not None:
                trial = replace(trial, negative=replace(trial.unlearned, target=never))
            found = attacked(chosen, trial, cache, name, options.seeds)
            every[name] |= {key: metric.as_dict() for key, metric in found.items()}
            rows += [row_of(key, metric, about) for key, metric in found.items()]
            print(f"{name}: attacked in {time.perf_counter() - start:.0f} s", flush=True)
            if options.output:
                Path(options.output).write_text(json.dumps(every, indent=1) + "\n")
        if options.pictures:
            draw_attacked(cache, target, options.rows, options.unlearning_seeds[0], options.pictures)
    controls = ["ceiling", "what stayed", "never learnt"]
    print(markdown_table(["forgotten", "row", "seed", "attack", "found", "of each seed", *controls], rows))
    names = list(dict.fromkeys(row[3] for row in rows))
    shown = [f"{key} %" for key in FIGURES if options.figures]
    print("\n" + markdown_table(["forgotten", "row", "seed", *shown, *names], wide_rows(every, names)))


if __name__ == "__main__":
    main()
