"""The default on classifiers that nobody chose it on: small ConvNeXt, Swin and ViT of 10,000 CIFAR-10 images.

    python benchmarks/cifar_classify.py --data_dir FOLDER

Each is trained from nothing by AdamW with flips and shifts. Then `hf-unlearn classify` with its defaults forgets
automobiles, ships, and a random tenth of the images. What its reports say is the table. About 15 minutes of one core a
model; a finished training or run is not made again.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from augmented_sources import CIFAR, POOL, cifar_vit, convnext, drawn, seeded, swin
from PIL import Image
from transformers import PreTrainedModel, ViTImageProcessor

from hf_unlearn.data.images import ArrayDataset, FlippedAndCropped
from hf_unlearn.evaluation import markdown_table, stamp
from hf_unlearn.evaluation.metric import share_text
from hf_unlearn.report.reading import read_record
from hf_unlearn.training.recipes import train_classifier

TEST, STEPS = 2_000, 1_500
BUILD = {
    "convnext": seeded(convnext, 3, [32, 64, 128], [1, 2, 1]),
    "swin": seeded(swin, 3, 32, [2, 2, 2], 4),
    "vit": seeded(cifar_vit),
}
ASKED = {
    "automobile": ["--forget_class", "automobile"],
    "ship": ["--forget_class", "ship"],
    "a random tenth": ["--forget_fraction", "0.1"],
}
COLUMNS = {
    "forget_accuracy": "forgotten images",
    "retain_accuracy": "retained images",
    "test_accuracy": "new images of what stays",
}


def written(images: ArrayDataset, folder: Path) -> Path:
    """The images as PNG files, a folder for each class."""
    if not folder.is_dir():
        for i in range(len(images)):
            item = images[i]
            path = folder / CIFAR[int(item["labels"])] / f"{i:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = ((item["pixel_values"] + 1) * 127.5).round().byte()
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    return folder


def trained(name: str, images: ArrayDataset, folder: Path, seed: int) -> Path:
    """The folder of a classifier that has learnt the images."""
    if not (folder / "config.json").is_file():
        model: PreTrainedModel = BUILD[name](seed)
        model.config.id2label = dict(enumerate(CIFAR))
        model.config.label2id = {label: i for i, label in enumerate(CIFAR)}
        train_classifier(model, FlippedAndCropped(images), seed, max_steps=STEPS, warmup_steps=60, what=name)
        middle = [0.5, 0.5, 0.5]
        size = {"height": 32, "width": 32}
        ViTImageProcessor(size=size, image_mean=middle, image_std=middle).save_pretrained(folder)
        model.save_pretrained(folder)
    return folder


def row(name: str, model: Path, asked: str, data: list[str], options: argparse.Namespace) -> list[str]:
    """What the report of one run says, the original's in brackets."""
    out = Path(options.folder) / f"{name}-without-{asked.replace(' ', '-')}"
    if not (out / "unlearning_report.json").is_file():
        command = [sys.executable, "-m", "hf_unlearn", "classify", "--pretrained_model_name_or_path", str(model)]
        more = [*data, *ASKED[asked], "--output_dir", str(out), "--seed", str(options.seed)]
        subprocess.run([*command, *more], check=True)
    record = read_record(out)
    cells = [name, asked, str(record.training.outer_steps), record.outcome.state]
    for metric in COLUMNS:
        after, before = (record.figures[of][metric] for of in ("after", "before"))
        cells.append(f"{share_text(after.number, after.samples)} ({before.number:.1%})")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="CIFAR-10 as parquet files with the columns img and label")
    parser.add_argument("--models", nargs="+", default=list(BUILD), choices=BUILD)
    parser.add_argument("--asked", nargs="+", default=list(ASKED), choices=ASKED)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="cifar-classify", help="where models and runs are kept")
    options = parser.parse_args()
    folder = Path(options.folder)
    images = drawn(options.data_dir, "train", {"train": POOL})["train"]
    test = drawn(options.data_dir, "test", {"test": TEST})["test"]
    data = ["--train_data_dir", str(written(images, folder / "train"))]
    data += ["--validation_data_dir", str(written(test, folder / "test"))]
    rows = []
    for name in options.models:
        model = trained(name, images, folder / name, options.seed)
        rows += [row(name, model, asked, data, options) for asked in options.asked]
    header = ["model", "forgotten", "steps", "verdict", *(f"{title}, recognised" for title in COLUMNS.values())]
    print(f"{stamp('torch', 'transformers')}\n\n{markdown_table(header, rows)}")


if __name__ == "__main__":
    main()
