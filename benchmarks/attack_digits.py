"""Attack the digits DDPM after forgetting a digit, beside the original and the model retrained without it.

    python benchmarks/attack_digits.py                        # digit 3, SFR-on as shipped, a few minutes
    python benchmarks/attack_digits.py --digit 7 --variants "no rate" stable --samples 100 --seeds 0 1 2

The class-embedding attack learns an embedding for the digit with the network frozen; relearning fine-tunes all weights
on a few pictures until the judge reads half of the samples as the digit. The original is the ceiling. The retrained
model never learnt the digit: what an attack finds there it made itself. A digit that stayed is the positive control.
Variants are those of ddpm_forget.py. Every result is kept in --output and not computed again.
"""

import argparse
import os
import time
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from ddpm_forget import VARIANTS, unlearn

LIMIT = 100  # steps of relearning


def unlearned(variant: str, digit: int, seed: int, folder: Path) -> tuple[Any, str]:
    """The pipeline after unlearning, and how long that took in words; run once."""
    from hf_unlearn import load_ddpm_pipeline

    path = folder / f"{variant.replace(' ', '_').replace(',', '')}_{digit}_{seed}"
    if not (path / "model_index.json").exists():
        pipeline, seconds = unlearn(variant, digit, seed)
        pipeline.save_pretrained(path)
        (path / "seconds.txt").write_text(f"{seconds:.0f} s")
    return load_ddpm_pipeline(str(path)), (path / "seconds.txt").read_text()


def share(found: dict[str, Any]) -> str:
    """A share in % with its interval, and that of each seed."""
    low, high = found["interval"]
    each = " ".join(f"{100 * value:.0f}" for value in found["per_seed"].values())
    return f"{100 * found['value']:.0f} [{100 * low:.0f}, {100 * high:.0f}] ({each})"


def steps(found: dict[str, Any]) -> str:
    """Steps of relearning, and those of each seed."""
    each = " ".join(str(value) for value in found["per_seed"].values())
    return f"{'' if found['reached'] else '> '}{found['value']:g} ({each})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=["no rate"], choices=list(VARIANTS))
    parser.add_argument("--digit", type=int, default=3)
    parser.add_argument("--unlearning_seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="of the attacks")
    parser.add_argument("--samples", type=int, default=100, help="of each seed")
    parser.add_argument("--output", type=Path, default=Path("attack-digits"))
    options = parser.parse_args()
    import torch

    from hf_unlearn import DIGITS_DDPM, digits, load_ddpm_pipeline
    from hf_unlearn.attacks import ClassEmbedding, ClassGuidance, ClassNull, ClassRelearning, class_trial, run_attacks
    from hf_unlearn.evaluation import digits_judge, markdown_table, retrained_digits_ddpm, stamp

    torch.set_num_threads(1)
    attacks = [ClassNull(), ClassGuidance(), ClassEmbedding(), ClassRelearning(max_steps=LIMIT)]
    digit, data = options.digit, digits()
    original, retrained = load_ddpm_pipeline(str(DIGITS_DDPM)), retrained_digits_ddpm(digit)
    rows: dict[str, list[str]] = {}
    for variant, seed in product(options.variants, options.unlearning_seeds):
        pipeline, taken = unlearned(variant, digit, seed, options.output)
        title = f"{variant}, seed {seed}"
        trial = class_trial(
            pipeline,
            original,
            digit,
            data.pixel_values,
            data.label_tensor,
            digits_judge(),
            retrained=retrained,
            samples=options.samples,
            reader_name="the digits judge",
        )
        start = time.perf_counter()
        metrics = list(run_attacks(attacks, trial, options.output / "attacks", options.seeds).values())
        print(f"{title}: unlearnt in {taken}, attacked in {time.perf_counter() - start:.0f} s")
        kept = f"{title}, asked for the {trial.positive.target.asked[0]}"
        names = {"ceiling": "original", "negative": f"retrained without the {digit}", "positive": kept}
        for role, name in {**names, "unlearned": title}.items():
            found = [{"value": m.value, **m.details} if role == "unlearned" else m.details[role] for m in metrics]
            rows[name] = [*map(share, found[:3]), steps(found[3])]
    titles = ["model", "null class %", "guidance, samplers %", "class embedding %", "relearning steps"]
    what = f"the {digit}, {options.samples} samples a seed, seeds {' '.join(map(str, options.seeds))}"
    print(f"\n{stamp('torch', 'diffusers')}\n\n{what}; shares with 95 % intervals, in brackets each seed")
    print(f"\n{markdown_table(titles, [[name, *cells] for name, cells in rows.items()])}")


if __name__ == "__main__":
    main()
