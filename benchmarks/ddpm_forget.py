"""Forget each digit of the shipped DDPM with every method, preset and ablation; print one table.

    python benchmarks/ddpm_forget.py --quick                 # digit 3, one seed, a few minutes
    python benchmarks/ddpm_forget.py --variants stable       # the headline: 10 digits x 3 seeds, 500 samples a class
    python benchmarks/ddpm_forget.py --seeds 0 --samples_per_class 100   # everything else, one seed

Every cell (variant, digit, seed) is kept in --output and not computed again; an interrupted run goes on. All
variants take 50 outer steps of batch 64 at learning rate 5e-4 with cosine decay. Sampling noise is the same for all
models.
"""

import argparse
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from cells import computed, digest_of, ranking

from hf_unlearn.common.keys import content_key

STEPS = 50
TRAINING = {
    "max_steps": STEPS,
    "learning_rate": 5e-4,
    "lr_scheduler_type": "cosine",
    "per_device_train_batch_size": 64,
}
OBJECTIVE = {"label_dropout": 0.1, "antithetic": True}

# name -> (method, its options, training options)
VARIANTS: dict[str, tuple[str, dict, dict]] = {
    "no rate": ("sfron", {}, {"learning_rate": None}),
    "no rate, no adversary": ("sfron", {"adversary": False}, {"learning_rate": None}),
    "stable": ("sfron", {}, {}),
    "paper": ("sfron", {"preset": "paper"}, {}),
    "reference": ("sfron", {"preset": "reference"}, {}),
    "stable, retain on the data": ("sfron", {"retain_loss": "data"}, {}),
    "stable, no mask": ("sfron", {"use_mask": False}, {}),
    "stable, shared optimizer": ("sfron", {"forget_optim": "shared"}, {}),
    "stable, beta 0.5": ("sfron", {"slow_rate": 0.5}, {}),
    "stable, K 1": ("sfron", {"retain_steps": 1}, {}),
    "stable, K 5": ("sfron", {"retain_steps": 5}, {}),
    "bounded ascent": ("sfron", {"forget_loss": "ascent"}, {}),
    "bounded ascent, no adaptive weights": ("sfron", {"forget_loss": "ascent", "adaptive_exponent": 0.0}, {}),
    "bounded ascent, no timestep norm.": ("sfron", {"forget_loss": "ascent", "timestep_normalise": False}, {}),
    "unbounded ascent": ("sfron", {"forget_loss": "ascent", "bound": "none"}, {}),
    "unbounded ascent, two-sided stop": (
        "sfron",
        {"forget_loss": "ascent", "bound": "none"},
        {"eval_strategy": "steps", "eval_steps": 5, "target_forget": 0.05, "max_retain_drift": 0.1},
    ),
    "finetune": ("finetune", {}, {}),
    "gradient_ascent": ("gradient_ascent", {}, {}),
    "neg_grad_plus": ("neg_grad_plus", {}, {}),
    "lora, all layers": ("sfron", {}, {"learning_rate": 5e-3}),
    "lora, saliency, half": ("sfron", {}, {"learning_rate": 5e-3}),
}
# Options of `lora.choose_lora`. Half: at most half of the factors' weights that rank 8 on all layers takes.
LORA = {
    "lora, all layers": {"select": "all", "rank": 8},
    "lora, saliency, half": {"select": "saliency", "rank": 8, "rank_budget": 0.5},
}


def method_of(variant: str):
    """The Method of a variant, with all its options resolved."""
    from hf_unlearn import METHODS, SFRon

    name, options, training = VARIANTS[variant]
    method = SFRon.from_preset(**options) if name == "sfron" else METHODS[name](**options)
    return method if training.get("learning_rate", 0) is None else method.at_rate()


def unlearn(variant: str, digit: int, seed: int):
    """(pipeline after, seconds of training with preparation)."""
    from hf_unlearn import NoisePrediction, UnlearnConfig, UnlearnTrainer, digits, load_ddpm_pipeline
    from hf_unlearn.data.pairs import split_by_label
    from hf_unlearn.evaluation import DIGITS_DDPM
    from hf_unlearn.saliency.ranks import add_lora, choose_lora

    pipeline = load_ddpm_pipeline(str(DIGITS_DDPM))
    forget, retain = split_by_label(digits(), digit)
    with tempfile.TemporaryDirectory() as folder:
        config = UnlearnConfig.quiet(
            output_dir=folder,
            seed=seed,
            max_loss_ratio=float("inf"),  # the table shows what an exploding method ends as
            **{**TRAINING, **VARIANTS[variant][2]},
        )
        objective = NoisePrediction(pipeline, **OBJECTIVE)
        if variant in LORA:
            add_lora(objective, choose_lora(objective, forget, retain, seed=seed, **LORA[variant]), seed=seed)
        trainer = UnlearnTrainer(objective, config, method_of(variant), forget, retain)
        start = time.perf_counter()
        trainer.train()
        return pipeline, time.perf_counter() - start


def measure(pipeline, digit: int, samples: int) -> dict:
    from hf_unlearn import digits
    from hf_unlearn.evaluation import SamplingConfig, digits_judge, evaluate_classes

    real, config = digits(), SamplingConfig(samples_per_class=samples)
    return asdict(evaluate_classes(pipeline, digits_judge(), [digit], real.pixel_values, real.label_tensor, config))


def cell(variant: str, digit: int, seed: int, samples: int) -> dict:
    """Figures of one run; "before" and "retrained" are the two that are not unlearned."""
    import torch
    from transformers.utils import logging

    from hf_unlearn import load_ddpm_pipeline
    from hf_unlearn.evaluation import DIGITS_DDPM, retrained_digits_ddpm

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    seconds = 0.0
    if variant == "before":
        pipeline = load_ddpm_pipeline(str(DIGITS_DDPM))
    elif variant == "retrained":
        pipeline = retrained_digits_ddpm(digit)
    else:
        pipeline, seconds = unlearn(variant, digit, seed)
    return {**measure(pipeline, digit, samples), "seconds": seconds}


def key(variant: str, digit: int, seed: int, samples: int) -> str:
    """Name of a cell by what it comes from: weights, all resolved options, data and training values."""
    from hf_unlearn.evaluation import DIGITS_DDPM, RETRAINED

    weights = DIGITS_DDPM / "unet/diffusion_pytorch_model.safetensors"
    if variant == "retrained":
        weights = RETRAINED / f"without_{digit}.safetensors"
    recipe = {}
    if variant in VARIANTS:
        recipe = {**asdict(method_of(variant)), **OBJECTIVE, **TRAINING, **VARIANTS[variant][2]}
        if variant in LORA:
            recipe |= {"lora": LORA[variant], **ranking(LORA[variant]["select"])}
    digest = content_key(recipe, digits=12)
    return f"{variant}|{digit}|{seed}|{samples}|{digest_of(weights)}|{digest}"


def table(cells: dict, variants: list[str], digit_list: list[int], seeds: list[int], samples: int) -> str:
    """Markdown: forgotten share, retained accuracy over the original's, Frechet distance over the retrained's."""
    from hf_unlearn.evaluation import interval, markdown_table, share_of_runs

    rows = []
    for variant in ["retrained", *variants]:
        forgotten, kept, ratio, met = [], [], [], 0
        for digit in digit_list:
            before, ideal = (cells[key(name, digit, 0, samples)] for name in ("before", "retrained"))
            for seed in seeds if variant != "retrained" else [0]:
                figures = cells[key(variant, digit, seed, samples)]
                forgotten.append(figures["forget_accuracy"])
                kept.append(100 * figures["retain_accuracy"] / before["retain_accuracy"])
                ratio.append(figures["frechet_distance"] / ideal["frechet_distance"])
                met += forgotten[-1] < 0.02 and kept[-1] >= 98 and ratio[-1] <= 1.2
        shares = [share_of_runs(forgotten, samples), f"{100 * max(forgotten):.1f}"]
        row = [variant, *shares, interval(kept, 1), f"{min(kept):.1f}"]
        rows.append([*row, interval(ratio, 2), f"{max(ratio):.2f}", f"{met}/{len(ratio)}"])
    header = ["method", "forgotten %", "max", "retained %", "min", "distance ratio", "max", "meets all three"]
    return markdown_table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--digits", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--samples_per_class", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--output", default="benchmarks/results/ddpm_forget.json")
    parser.add_argument("--markdown", help="also write the table, with versions and date, to this file")
    parser.add_argument("--quick", action="store_true", help="digit 3, seed 0, 100 samples a class")
    options = parser.parse_args()
    if options.quick:
        options.digits, options.seeds, options.samples_per_class = [3], [0], 100
    os.environ["OMP_NUM_THREADS"] = "1"
    from hf_unlearn.evaluation import stamp

    samples = options.samples_per_class
    wanted = [(v, d, 0, samples) for v in ("before", "retrained") for d in options.digits]
    wanted += [(v, d, s, samples) for v in options.variants for d in options.digits for s in options.seeds]
    cells = computed(options.output, wanted, key, cell, options.jobs)
    text = table(cells, options.variants, options.digits, options.seeds, samples)
    count = (
        f"{len(options.digits)} digits x {len(options.seeds)} seeds, {samples} samples a class, {STEPS} outer steps"
    )
    print(f"\n{count}\n\n{text}")
    if options.markdown:
        head = stamp("torch", "diffusers", "transformers")
        Path(options.markdown).write_text(f"{head}\n\n{count}\n\n{text}\n")


if __name__ == "__main__":
    main()
