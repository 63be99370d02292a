"""Forget a style or an object of the emoji model with every text-to-image method; print UnlearnCanvas's figures.

    python benchmarks/emoji_forget.py --data_dir FOLDER      # or without it: pictures rendered from npm

No training data is used: the model draws its forget and retain images itself. All methods spend the same number of
batch gradients. Figures in %, means over seeds: UA, how much of what was asked for as the forgotten one is not read
as it; IRA and CRA, how much of the rest is still read right in the forgotten one's domain and in the other one.
"""

import argparse
import hashlib
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from cells import computed, digest_of, method_at, ranking

from hf_unlearn.common.keys import content_key

STYLE, THING = ("style", "noto"), ("object", "rocket")
TUNED_ON = (("style", "twemoji"), ("object", "guitar"))  # never in the table
BUDGET, BATCH = 200, 16
DRAWING = {"num_inference_steps": 20, "guidance_scale": 3.0, "batch_size": 24}
IMAGES = {"num_forget_images": 96, "num_retain_images": 192}
SHOWN = ("rocket", "sailboat", "cat", "castle")  # in the pictures
STEPS = 100  # of the rows without a rate: 300 batch gradients
# row -> (method, its options, weights that are trained, learning rate; None: the method finds its strength)
SFRON = {"retain_steps": 1}  # 100 outer steps
ALONE = {"adversary": False}
TRIED = {
    f"sfron, no rate, resist {w}": ("sfron", {"resist_relearning": float(w), **ALONE}, "full", None) for w in (1, 4)
}
ROWS = {
    **TRIED,  # in no table unless they are asked for
    "sfron, no rate": ("sfron", {}, "full", None),
    "sfron, no rate, lora all": ("sfron", {}, "full", None),
    "sfron, no rate, no adversary": ("sfron", ALONE, "full", None),
    "sfron, no rate, no adversary, lora all": ("sfron", ALONE, "full", None),
    "sfron": ("sfron", SFRON, "xattn", 5e-3),
    "sfron, all weights": ("sfron", SFRON, "full", 1e-3),
    "salun": ("salun", {}, "full", 1e-3),
    "esd-x": ("esd", {}, "xattn", 5e-4),
    "concept_ablation": ("concept_ablation", {}, "xattn", 2e-3),
    "uce": ("uce", {}, "xattn", 0.0),
    "uce, after too": ("uce", {"tokens": "after"}, "xattn", 0.0),
    "gradient_ascent": ("gradient_ascent", {}, "full", 1e-5),
    "sfron, lora all": ("sfron", SFRON, "full", 2e-3),
    "sfron, lora saliency half": ("sfron", SFRON, "full", 2e-3),
}
# Options of `lora.choose_lora`. Half: at most half of the factors' weights that rank 8 on all layers takes.
LORA = {
    "sfron, no rate, lora all": {"select": "all", "rank": 8},
    "sfron, no rate, no adversary, lora all": {"select": "all", "rank": 8},
    "sfron, lora all": {"select": "all", "rank": 8},
    "sfron, lora saliency half": {"select": "saliency", "rank": 8, "rank_budget": 0.5},
}


def concept_of(kind: str, name: str):
    """(the concept, whose prompts go to the next style or object; the prompts of everything else)."""
    from hf_unlearn.evaluation.emoji import OBJECTS, STYLES, prompt_of
    from hf_unlearn.families.concepts import Concept

    styles, things = list(STYLES), list(OBJECTS)
    names = styles if kind == "style" else things
    other = names[(names.index(name) + 1) % len(names)]
    every = [(style, thing) for style in styles for thing in things]
    gone = [(s, t) for s, t in every if name in (s, t)]
    anchors = [(other, t) if kind == "style" else (s, other) for s, t in gone]
    concept = Concept(name, tuple(prompt_of(*pair) for pair in gone), tuple(prompt_of(*pair) for pair in anchors))
    return concept, [prompt_of(*pair) for pair in every if pair not in gone]


def method_of(row: str):
    """The Method of a row."""
    name, options, _, rate = ROWS[row]
    return method_at(name, options, rate)


def trained(
    model: str, row: str, kind: str, name: str, seed: int, rate: float | None, folder: str, budget: int = BUDGET
):
    """(pipeline, its trainer, seconds of unlearning without drawing the data). Nothing is saved to `folder` yet.

    `budget` counts batch gradients.
    """
    from hf_unlearn import UnlearnConfig, UnlearnTrainer
    from hf_unlearn.families.latents import Drawing
    from hf_unlearn.families.synthesis import concept_data
    from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline
    from hf_unlearn.saliency.ranks import add_lora, choose_lora

    pipeline = load_text_to_image_pipeline(model)
    _, _, train_method, own_rate = ROWS[row]
    method = method_of(row)
    concept, retain = concept_of(kind, name)
    drawing = Drawing(**DRAWING, seed=seed * 10_000)
    data = dict(drawing=drawing, forget_images=method.synthesised_from, train_method=train_method, **IMAGES)
    cache = os.path.join(tempfile.gettempdir(), "emoji-forget-cache")
    objective, forget_set, retain_set = concept_data(pipeline, [concept], cache, retain, **data)
    if row in LORA:
        add_lora(objective, choose_lora(objective, forget_set, retain_set, seed=seed, **LORA[row]), seed=seed)
    config = UnlearnConfig.quiet(
        output_dir=folder,
        max_steps=STEPS if own_rate is None else max(1, int(budget / method.batch_gradients)),
        per_device_train_batch_size=BATCH,
        learning_rate=None if own_rate is None else rate or own_rate or 1e-4,
        max_loss_ratio=float("inf"),  # the table shows what an exploding method ends as
        seed=seed,
    )
    trainer = UnlearnTrainer(objective, config, method, forget_set, retain_set, forgotten=f"the {kind} {name}")
    start = time.perf_counter()
    trainer.train()
    return pipeline, trainer, time.perf_counter() - start


def judged(pipeline, model: str, data_dir: str, kind: str, name: str, count: int):
    """(UnlearnCanvas's figures, the pictures they are of)."""
    import torch
    from emoji_figures import canvas_figures, draw_grid
    from emoji_pictures import load_emoji

    from hf_unlearn.evaluation.emoji import OBJECTS, STYLES, EmojiClassifier

    number = (STYLES if kind == "style" else OBJECTS).index(name)
    judge = EmojiClassifier.from_pretrained(
        Path(model) / "judge", use_safetensors=True, torch_dtype=torch.float32
    ).eval()
    pictures = draw_grid(pipeline, count, DRAWING["num_inference_steps"], DRAWING["guidance_scale"])
    return canvas_figures(judge, *pictures, (kind, number), load_emoji(data_dir or None)), pictures[0]


def prompts_of(kind: str) -> int:
    """How many of the 72 prompts name one style or one object."""
    from hf_unlearn.evaluation.emoji import OBJECTS, STYLES

    return len(OBJECTS if kind == "style" else STYLES)


def shown(pictures, count: int):
    """(prompts, 1, 3, 64, 64): the first picture of each `SHOWN` object in each style."""
    from hf_unlearn.evaluation.emoji import OBJECTS, STYLES

    firsts = [(s * len(OBJECTS) + OBJECTS.index(thing)) * count for thing in SHOWN for s in range(len(STYLES))]
    return pictures[firsts].unsqueeze(1)


def cell(model: str, data_dir: str, row: str, kind: str, name: str, seed: int, rate: float | None, count: int) -> dict:
    """Figures of one run."""
    import torch
    from transformers.utils import logging

    from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    if row == "original":
        pipeline, seconds = load_text_to_image_pipeline(model), 0.0
    else:
        with tempfile.TemporaryDirectory() as folder:
            pipeline, _, seconds = trained(model, row, kind, name, seed, rate, folder)
    figures, pictures = judged(pipeline, model, data_dir, kind, name, count)
    strip = strip_path(model, data_dir, row, kind, name, seed, rate, count)
    strip.parent.mkdir(parents=True, exist_ok=True)
    torch.save(((shown(pictures, count) + 1) * 127.5).round().to(torch.uint8), strip)
    return {**figures, "seconds": seconds}


def strip_path(*cell_arguments) -> Path:
    """Where a cell leaves its first picture of each `SHOWN` object in each style."""
    name = hashlib.sha256(key(*cell_arguments).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir(), "emoji-forget-strips", f"{name}.pt")


def picture(strips: dict[str, Path], target: tuple[str, str], path: str) -> None:
    """PNG: a row a method, a column a prompt, the same noise in a column."""
    import torch

    lost = [row for row, strip in strips.items() if not strip.exists()]
    if lost:
        print(f"not in {path}: {', '.join(lost)}, whose cells were computed elsewhere")
    kept = {row: torch.load(strip, weights_only=True) for row, strip in strips.items() if row not in lost}
    draw({row: strip / 127.5 - 1 for row, strip in kept.items()}, target, path)


def draw(grids: dict, target: tuple[str, str], path: str) -> None:
    """PNG of what `shown` gave of each model."""
    from hf_unlearn.evaluation.emoji import STYLES
    from hf_unlearn.evaluation.grids import save_grid

    asked = [(style, thing) for thing in SHOWN for style in STYLES]
    save_grid(grids, ["\n".join(pair) for pair in asked], [target[1] in pair for pair in asked], path)


def key(model: str, data_dir: str, row: str, kind: str, name: str, seed: int, rate: float | None, count: int) -> str:
    """Name of a cell by what it comes from: weights, method with all options, data settings."""
    about = {"drawing": DRAWING, "images": IMAGES, "budget": BUDGET, "batch": BATCH, "rate": rate}
    if row in ROWS:
        about["row"] = [ROWS[row], asdict(method_of(row)), LORA.get(row)]
    if row in LORA:
        about |= ranking(LORA[row]["select"])
    digest = content_key(about, digits=12)
    return f"{row}|{kind}|{name}|{seed}|{count}|{digest_of(*sorted(Path(model).glob('*/*.safetensors')))}|{digest}"


def rows_for(model: str, rows: list[str]) -> list[str]:
    """The rows whose method is for such a model: uce edits cross attention, which a flow model has not."""
    from hf_unlearn.families.load import pipeline_class
    from hf_unlearn.families.text_to_image.pipelines import DENOISERS

    if DENOISERS[pipeline_class(model)].cross_attention:
        return rows
    left = [row for row in rows if ROWS[row][0] != "uce"]
    lost = [row for row in rows if row not in left]
    if lost:
        print(f"left out, for want of cross attention: {'; '.join(lost)}", flush=True)
    return left


def target_of(text: str) -> tuple[str, str]:
    """("object", "cat") of "object:cat"."""
    from hf_unlearn.evaluation.emoji import OBJECTS, STYLES

    kind, _, name = text.partition(":")
    if name not in {"style": STYLES, "object": OBJECTS}.get(kind, ()):
        raise argparse.ArgumentTypeError(f"{text!r} names no style or object: give style:NAME or object:NAME")
    return kind, name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of train_emoji_sd.py, _emoji2 or _emoji_flow; default the shipped one")
    parser.add_argument("--data_dir", default="", help="folder of STYLE_64.npz files; default: render from npm")
    parser.add_argument("--rows", nargs="+", default=[row for row in ROWS if row not in TRIED], choices=list(ROWS))
    parser.add_argument(
        "--targets", nargs="+", type=target_of, metavar="KIND:NAME", help="default style:noto object:rocket"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--samples_per_prompt", type=int, default=3)
    parser.add_argument(
        "--rates", nargs="+", type=float, help="compare learning rates on targets of their own instead"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--output", default="benchmarks/results/emoji_forget.json")
    parser.add_argument("--pictures", help="also draw FOLDER/emoji_style.png and emoji_object.png, of the first seed")
    parser.add_argument("--markdown", help="also write the tables, with versions and date, to this file")
    options = parser.parse_args()
    from emoji_pictures import check_emoji

    check_emoji(parser, options.data_dir)
    os.environ["OMP_NUM_THREADS"] = "1"
    from hf_unlearn.evaluation import interval, markdown_table, share_of_runs, stamp
    from hf_unlearn.evaluation.emoji import EMOJI_SD, OBJECTS, STYLES

    options.model = options.model or str(EMOJI_SD)
    options.rows = rows_for(options.model, options.rows)
    targets = options.targets or (TUNED_ON if options.rates else (STYLE, THING))
    seeds = [100] if options.rates else options.seeds
    runs = [(row, rate) for row in options.rows for rate in options.rates or [None]]
    head, tail = (options.model, options.data_dir), (options.samples_per_prompt,)
    wanted = [(*head, "original", *target, 0, None, *tail) for target in targets]
    wanted += [(*head, row, *t, seed, rate, *tail) for t in targets for row, rate in runs for seed in seeds]
    cells = computed(options.output, wanted, key, cell, options.jobs)
    text = ""
    for target in targets:
        rows = []
        for row, rate in [("original", None), *runs]:
            found = [cells[key(*head, row, *target, s, rate, *tail)] for s in (seeds if row in ROWS else [0])]
            gone = options.samples_per_prompt * prompts_of(target[0])
            kept = options.samples_per_prompt * len(STYLES) * len(OBJECTS) - gone
            counts = {"UA": gone, "IRA": kept, "CRA": kept}
            shares = [share_of_runs([f[name] for f in found], count) for name, count in counts.items()]
            distance = interval([f["frechet"] for f in found], 2)
            rows.append([f"{row} {rate:g}" if rate else row, *shares, distance])
        table = markdown_table(["method", "UA %", "IRA %", "CRA %", "Frechet distance"], rows)
        text += f"\nForget the {target[0]} {target[1]}, {len(seeds)} seeds\n\n{table}\n"
        if options.pictures:
            made = {r: strip_path(*head, r, *target, seeds[0] if r in ROWS else 0, None, *tail) for r, _ in runs}
            made = {"original": strip_path(*head, "original", *target, 0, None, *tail), **made}
            picture(made, target, f"{options.pictures}/emoji_{target[0]}.png")
    print(text)
    if options.markdown:
        Path(options.markdown).write_text(f"{stamp('torch', 'diffusers', 'transformers')}\n{text}")


if __name__ == "__main__":
    main()
