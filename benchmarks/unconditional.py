"""Forget a set of images of an unconditional DDPM: all images of one digit; how often is it still drawn?

    python benchmarks/unconditional.py                    # digits 0 to 4, seed 0
    python benchmarks/unconditional.py --digits 7 --method neg_grad_plus

Trains an unconditional model of scikit-learn's digits and one without each digit (two minutes each on a core), kept
in --models. The share of each digit among the samples is what the judge reads; their Frechet distance is to the real
images of the other nine, so the original's is large by what is to be forgotten.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from hf_unlearn import METHODS, NoisePrediction, UnlearnConfig, UnlearnTrainer, digits, load_ddpm_pipeline
from hf_unlearn.data.pairs import split_by_label
from hf_unlearn.evaluation import SamplingConfig, digits_judge, frechet_distance, markdown_table
from hf_unlearn.evaluation.generation import sample_unconditional
from hf_unlearn.evaluation.metric import share_text

ROOT = Path(__file__).parents[1]


def trained(folder: Path, exclude: int | None = None):
    """The unconditional model, or the one that never saw a digit; trained once."""
    name = "all" if exclude is None else f"without_{exclude}"
    if not (folder / name / "model_index.json").exists():
        command = [sys.executable, ROOT / "scripts/train_digits_ddpm.py", "--unconditional", "--output_dir"]
        command += [folder / name] + (["--exclude_class", str(exclude)] if exclude is not None else [])
        subprocess.run([str(c) for c in command], check=True)
    return load_ddpm_pipeline(str(folder / name))


def figures(pipeline, digit: int, samples: int) -> list[str]:
    """Share of the samples read as the digit, and their Frechet distance to the other digits."""
    judge, real = digits_judge(), digits()
    images = sample_unconditional(pipeline, samples, SamplingConfig(num_inference_steps=25))
    with torch.no_grad():
        read = judge(images).argmax(1)
    kept = real.pixel_values[real.label_tensor != digit]
    share = share_text((read == digit).double().mean().item(), len(read))
    return [share, f"{frechet_distance(judge, kept, images):.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--method", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=Path, default=Path("unconditional-models"))
    options = parser.parse_args()
    rows = []
    for digit in options.digits:
        rows.append([digit, "before", *figures(trained(options.models), digit, options.samples)])
        rows.append([digit, "retrained", *figures(trained(options.models, digit), digit, options.samples)])
        for name in options.method:
            pipeline = trained(options.models)
            with tempfile.TemporaryDirectory() as folder:
                config = UnlearnConfig.quiet(output_dir=folder, max_steps=options.steps, seed=options.seed)
                config.max_loss_ratio = float("inf")  # the table shows what an exploding method ends as
                parts = split_by_label(digits(), digit)
                UnlearnTrainer(NoisePrediction(pipeline), config, METHODS[name](), *parts).train()
            rows.append([digit, name, *figures(pipeline, digit, options.samples)])
            print(rows[-1], flush=True)
    print(f"\n{options.samples} samples, {options.steps} outer steps, seed {options.seed}\n")
    print(
        markdown_table(
            ["digit", "model", "read as the digit", "Frechet distance"], [[str(c) for c in r] for r in rows]
        )
    )


if __name__ == "__main__":
    main()
