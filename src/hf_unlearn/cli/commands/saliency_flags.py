"""The flags of `hf-unlearn saliency`, named as in the training commands."""

import argparse

from ..terminal import CommandParser


def parser() -> CommandParser:
    """Return the parser of `hf-unlearn saliency`; flags of the data, the loss and the mask have no default here."""
    flags = CommandParser(
        prog="hf-unlearn saliency",
        allow_abbrev=False,
        description="Show which weights matter for the forget data, as a table of layers, and write a file for "
        "--mask_path. The flags are those of the training commands.",
    )
    flags.add_argument(
        "model",
        nargs="?",
        help="UNet2D or DiT pipeline or classifier: folder or Hub id; the default is the shipped model of the digits.",
    )
    add(flags, "--revision", "--model_revision", help="Hub revision of the model.")
    add(flags, "--output", default="masks.safetensors", help="File of the masks; the default is masks.safetensors.")
    add(flags, "--top", type=int, default=20, help="Layers in the table; the default is 20.")
    add(flags, "--json", action="store_true", help="Print density and layers as JSON.")
    add(flags, "--seed", type=int, default=0, help="Random seed; the default is 0.")

    data = flags.add_argument_group("Data")
    add(data, "--train_data_dir", "--train_dir", help="Folder of the training images.")
    add(data, "--dataset_name", help="Hub id of the training images.")
    add(data, "--dataset_config_name", help="Configuration of that data set.")
    add(data, "--forget_class", nargs="+", action="extend", help="Classes to forget; may be repeated.")
    add(data, "--forget_indices", nargs="+", help="Positions to forget; for a classifier a file with one a line.")
    add(data, "--forget_data_dir", help="Folder of the images to forget (pipelines).")
    add(data, "--forget_fraction", type=float, help="Share of the images to forget, at random (classifiers).")
    add(data, "--image_column", "--image_column_name", help="Column that holds the images.")
    add(data, "--label_column", "--label_column_name", help="Column that holds the labels.")
    add(data, "--resolution", type=int, help="Height and width; the default is the model's (pipelines).")
    switch(data, "--center_crop", "Crop images to a square instead of squeezing them (pipelines).")
    add(data, "--max_train_samples", type=int, help="Images to take, spread evenly over the data (classifiers).")
    switch(data, "--skip_unreadable_images", "Leave broken images out (classifiers).")
    pixels = "of the pixels in [0, 1], for a classifier without a processor: one number, or one a channel."
    add(data, "--image_mean", type=float, nargs="+", help=f"Mean {pixels}")
    add(data, "--image_std", type=float, nargs="+", help=f"Standard deviation {pixels}")

    loss = flags.add_argument_group("Loss of pipelines")
    add(loss, "--label_dropout", type=float, help="Share of null labels among retain samples; the default is 0.1.")
    switch(loss, "--antithetic", "Draw timesteps in pairs t, T-1-t (the default); --no_antithetic does not.")
    add(loss, "--no_antithetic", action="store_const", const=False, dest="antithetic", help=argparse.SUPPRESS)
    add(loss, "--null_class", type=int, help="Class embedding that means no class (UNet2D).")
    add(loss, "--variance_weight", type=float, help="Weight of the variational term (DiT).")
    switch(loss, "--random_flip", "Take both flips of every image (DiT).")
    add(loss, "--cache_dir", help="Folder of encoded latents; the default is `cache` beside the output (DiT).")

    mask = flags.add_argument_group("Mask")
    rule = mask.add_mutually_exclusive_group()
    threshold = "A weight is salient where F_forget >= gamma F_retain; the default gamma is 1."
    rule.add_argument("--mask_threshold", type=float, help=threshold)
    rule.add_argument("--mask_density", type=float, help="Take this share of all weights instead, the most salient.")
    estimators = "Fisher from per-sample or per-batch gradients; the default is sample."
    mask.add_argument("--fisher", choices=("sample", "batch"), help=estimators)
    mask.add_argument("--fisher_samples", type=int, help="Samples of each set; 0 takes all; the default is 512.")
    mask.add_argument("--fisher_batch_size", type=int, help="Samples per chunk; the default is 32.")
    return flags


def add(where: argparse._ActionsContainer, name: str, *aliases: str, **options: object) -> None:
    """Add a flag that is shown under `name` only."""
    action = where.add_argument(name, *aliases, **options)  # type: ignore[arg-type]
    action.option_strings = [name]


def switch(where: argparse._ActionsContainer, name: str, text: str) -> None:
    """Add a flag without a value; where it is not given, there is no value either."""
    where.add_argument(name, action="store_const", const=True, help=text)
