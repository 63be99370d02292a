"""The default on a class-conditional DDPM that nobody chose it on: CIFAR-10 classes, read by a judge.

    python benchmarks/cifar_forget.py --model cifar-ddpm --data_dir FOLDER --judge judge.safetensors --classes 1 3

The model is that of train_cifar_ddpm.py, the judge that of cifar_judge.py. Each class is forgotten by `hf-unlearn ddpm
--forget_class N` with its defaults. Of each class 50 samples (20 steps, guidance 1.5, the same noise for both models)
are read: those of the forgotten class, and all others, beside the original's. About ten minutes of one core a class.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from augmented_sources import CIFAR
from cifar_judge import CifarJudge, cifar_judge, read

from hf_unlearn.evaluation import SamplingConfig, markdown_table, stamp
from hf_unlearn.evaluation.generation import sample_classes
from hf_unlearn.evaluation.metric import share_text
from hf_unlearn.families.ddpm.pipeline import load_ddpm_pipeline

EACH = 50


def forgotten(options: argparse.Namespace, number: int) -> Path:
    """The folder of the run that forgets a class. A finished one is not made again."""
    folder = Path(options.folder) / f"without-{CIFAR[number]}"
    data = ["--train_data_dir", options.data_dir, "--image_column", "img"]
    asked = ["--pretrained_model_name_or_path", options.model, "--forget_class", str(number)]
    command = [sys.executable, "-m", "hf_unlearn", "ddpm", *asked, *data, "--output_dir", str(folder)]
    subprocess.run([*command, *options.more], check=True)
    return folder


def right(folder: str | Path, judge: CifarJudge) -> torch.Tensor:
    """(10,) how many of `EACH` samples of each class are read as it."""
    config = SamplingConfig(samples_per_class=EACH, num_inference_steps=20)
    samples = sample_classes(load_ddpm_pipeline(folder), list(range(10)), config)
    asked = torch.arange(10).repeat_interleave(EACH)
    return (read(judge, samples) == asked).view(10, EACH).sum(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--judge", required=True)
    parser.add_argument("--classes", nargs="+", type=int, default=[1, 3, 8], choices=range(10), metavar="N")
    parser.add_argument("--folder", default="cifar-forget", help="where the runs are kept")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="further flags of the command, last")
    options = parser.parse_args()
    judge = cifar_judge(options.judge)
    before = right(options.model, judge)
    rows = []
    for number in options.classes:
        after = right(forgotten(options, number), judge)
        others = [c for c in range(10) if c != number]
        rest = [int(found[others].sum()) / (9 * EACH) for found in (after, before)]
        worst = min(others, key=lambda c: int(after[c] - before[c]))
        shares = [share_text(int(found[number]) / EACH, EACH) for found in (after, before)]
        lost = f"{CIFAR[worst]} {int(after[worst])} of {EACH} ({int(before[worst])})"
        rows.append([CIFAR[number], *shares, *(share_text(share, 9 * EACH) for share in rest), lost])
    header = ["forgotten", "read as it", "original's", "rest read right", "original's", "which lost most (original's)"]
    print(f"{stamp('torch', 'diffusers')}\n\n{markdown_table(header, rows)}")


if __name__ == "__main__":
    main()
