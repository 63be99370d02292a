"""Forget digits of the small DiT with every diffusion method; print one table.

    python scripts/train_digits_dit.py --output_dir digits-dit          # once
    python benchmarks/dit_forget.py --model digits-dit

All methods spend the same number of batch gradients (batch 64, cosine decay). Samples: DDIM, 25 steps, guidance 2, the
same noise for every model. Forgotten: share of the samples asked for as the digit that the judge reads as it.
Retained: accuracy of the others over the original's. Distance: Frechet distance of the retained ones in the judge's
features, over the original's.
"""

import argparse
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from cells import computed, digest_of, method_at

from hf_unlearn.common.keys import content_key

BUDGET = 300
# row -> (method, its options, learning rate)
ROWS = {
    "sfron, no rate": ("sfron", {}, None),
    "sfron, no rate, no adversary": ("sfron", {"adversary": False}, None),
    "sfron": ("sfron", {}, 3e-4),
    "sfron, ascent": ("sfron", {"forget_loss": "ascent"}, 3e-4),
    "salun": ("salun", {}, 3e-4),
    "esd": ("esd", {}, 3e-5),
    "concept_ablation": ("concept_ablation", {}, 3e-4),
    "selective_amnesia": ("selective_amnesia", {}, 3e-4),
    "gradient_ascent": ("gradient_ascent", {}, 3e-5),
}


def method_of(row: str):
    """The Method of a row."""
    name, options, rate = ROWS[row]
    return method_at(name, options, rate)


def unlearned(model: str, row: str, digit: int, seed: int, rate: float | None):
    """(pipeline, seconds of unlearning)."""
    from hf_unlearn import DiTPrediction, UnlearnConfig, UnlearnTrainer, digits
    from hf_unlearn.data.pairs import split_by_label
    from hf_unlearn.families.dit.load import load_dit_pipeline
    from hf_unlearn.families.latents import encode_images

    pipeline = load_dit_pipeline(model)
    if row == "original":
        return pipeline, 0.0
    own_rate, method = ROWS[row][2], method_of(row)
    with tempfile.TemporaryDirectory() as folder:
        data = split_by_label(encode_images(pipeline.vae, digits(), folder, flips=False, batch_size=256), digit)
        config = UnlearnConfig.quiet(
            output_dir=folder,
            max_steps=max(1, int(BUDGET / method.batch_gradients)),
            learning_rate=rate or own_rate,  # None: the method finds its strength
            max_loss_ratio=float("inf"),  # the table shows what an exploding method ends as
            seed=seed,
        )
        trainer = UnlearnTrainer(DiTPrediction(pipeline), config, method, *data)
        start = time.perf_counter()
        trainer.train()
        return pipeline, time.perf_counter() - start


def cell(model: str, row: str, digit: int, seed: int, rate: float | None, samples: int) -> dict:
    """Figures of one run."""
    import torch
    from transformers.utils import logging

    from hf_unlearn import digits
    from hf_unlearn.evaluation import SamplingConfig, digits_judge, evaluate_classes

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    pipeline, seconds = unlearned(model, row, digit, seed, rate)
    real, draw = digits(), SamplingConfig(samples, 2.0, 25)
    figures = evaluate_classes(pipeline, digits_judge(), [digit], real.pixel_values, real.label_tensor, draw)
    return {**asdict(figures), "seconds": seconds}


def draw(model: str, rows: list[str], digit: int, seed: int, path: str) -> None:
    """PNG: a row a method, a column a digit, the same noise in a column."""
    from hf_unlearn.evaluation import SamplingConfig, before_after

    pipelines = {row: unlearned(model, row, digit, seed, None)[0] for row in ["original", *rows]}
    before_after(pipelines, list(range(10)), [digit], path, SamplingConfig(4, 2.0, 25))


def key(model: str, row: str, digit: int, seed: int, rate: float | None, samples: int) -> str:
    """Name of a cell by what it comes from: weights, method with all options, budget."""
    about = [BUDGET, rate]
    if row in ROWS:
        about += [ROWS[row], asdict(method_of(row))]
    digest = content_key(about, digits=12)
    return f"{row}|{digit}|{seed}|{samples}|{digest_of(*sorted(Path(model).glob('*/*.safetensors')))}|{digest}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--digits", nargs="+", type=int, default=[3, 5, 8])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--samples_per_class", type=int, default=50)
    parser.add_argument("--rates", nargs="+", type=float, help="compare learning rates instead of the rows' own")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--output", default="benchmarks/results/dit_forget.json")
    parser.add_argument("--picture", help="also draw every row's model of the first digit and seed to this PNG")
    parser.add_argument("--markdown", help="also write the table, with versions and date, to this file")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    from hf_unlearn.evaluation import interval, markdown_table, share_of_runs, stamp

    samples = options.samples_per_class
    runs = [(row, rate) for row in options.rows for rate in options.rates or [None]]
    wanted = [(options.model, "original", digit, 0, None, samples) for digit in options.digits]
    pairs = [(digit, seed) for digit in options.digits for seed in options.seeds]
    wanted += [(options.model, row, *pair, rate, samples) for row, rate in runs for pair in pairs]
    cells = computed(options.output, wanted, key, cell, options.jobs)
    rows = []
    for row, rate in [("original", None), *runs]:
        forgotten, kept, ratio = [], [], []
        for digit, seed in pairs if row in ROWS else [(digit, 0) for digit in options.digits]:
            before = cells[key(options.model, "original", digit, 0, None, samples)]
            figures = cells[key(options.model, row, digit, seed, rate, samples)]
            forgotten.append(figures["forget_accuracy"])
            kept.append(100 * figures["retain_accuracy"] / before["retain_accuracy"])
            ratio.append(figures["frechet_distance"] / before["frechet_distance"])
        shares = [share_of_runs(forgotten, samples), f"{100 * max(forgotten):.1f}"]
        shares += [interval(kept, 1), f"{min(kept):.1f}"]
        rows.append([f"{row} {rate:g}" if rate else row, *shares, interval(ratio, 2)])
    header = ["method", "forgotten %", "max", "retained %", "min", "distance ratio"]
    text = markdown_table(header, rows)
    print(f"\ndigits {options.digits} x {len(options.seeds)} seeds, {samples} samples a class\n\n{text}")
    if options.picture:
        draw(options.model, options.rows, options.digits[0], options.seeds[0], options.picture)
    if options.markdown:
        Path(options.markdown).write_text(f"{stamp('torch', 'diffusers', 'transformers')}\n\n{text}\n")


if __name__ == "__main__":
    main()
