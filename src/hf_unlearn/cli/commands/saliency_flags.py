"""The flags of `hf-unlearn saliency`, named as in the scripts of each family."""

from typing import Any

from ..terminal import CommandParser


def parser() -> CommandParser:
    """The flags of `hf-unlearn saliency`; those of the data, the loss and the mask have no default here."""
    flags = CommandParser(
        prog="hf-unlearn saliency",
        allow_abbrev=False,
        description="Which weights matter for the forget data: a table by layer, and a file for --mask_path. "
        "Flags are named as in the scripts.",
    )
    flags.add_argument(
        "model", nargs="?", help="UNet2D or DiT pipeline or classifier: folder or Hub id; default the digits DDPM"
    )
    flags.add_argument("--revision", "--model_revision", help="Hub revision of the model")
    flags.add_argument("--output", default="masks.safetensors", help="default masks.safetensors")
    flags.add_argument("--top", type=int, default=20, help="layers in the table")
    flags.add_argument("--json", action="store_true", help="print density and layers as JSON")
    flags.add_argument("--seed", type=int, default=0, help="of everything random; default 0")

    data = flags.add_argument_group("data")
    data.add_argument("--train_data_dir", "--train_dir", help="folder with the training images")
    data.add_argument("--dataset_name", help="Hub id of the training images")
    data.add_argument("--dataset_config_name", help="configuration of that data set")
    data.add_argument("--forget_class", nargs="+", action="extend", help="classes to forget; may be repeated")
    data.add_argument("--forget_indices", nargs="+", help="positions; for a classifier a file with one a line")
    data.add_argument("--forget_data_dir", help="folder with the images to forget (pipelines)")
    data.add_argument("--forget_fraction", type=float, help="a random share of the images (classifiers)")
    data.add_argument("--image_column", "--image_column_name", help="column of the images")
    data.add_argument("--label_column", "--label_column_name", help="column of the labels")
    data.add_argument("--resolution", type=int, help="default the model's sample size (pipelines)")
    data.add_argument("--center_crop", **_switch("crop to a square instead of squeezing (pipelines)"))
    data.add_argument("--max_train_samples", type=int, help="at most this many (classifiers)")
    data.add_argument("--skip_unreadable_images", **_switch("leave broken images out (classifiers)"))

    loss = flags.add_argument_group("loss, of pipelines")
    loss.add_argument("--label_dropout", type=float, help="null labels among retain samples; default 0.1")
    loss.add_argument("--antithetic", **_switch("timesteps in pairs t, T-1-t"))
    loss.add_argument("--null_class", type=int, help="class embedding that means no class (UNet2D)")
    loss.add_argument("--variance_weight", type=float, help="weight of the variational term (DiT)")
    loss.add_argument("--random_flip", **_switch("both flips of every image (DiT)"))
    loss.add_argument("--cache_dir", help="latents; default `cache` beside the output (DiT)")

    mask = flags.add_argument_group("mask")
    rule = mask.add_mutually_exclusive_group()
    rule.add_argument(
        "--mask_threshold", type=float, help="gamma: salient where F_forget >= gamma F_retain; default 1"
    )
    rule.add_argument("--mask_density", type=float, help="instead: this share of all weights, the most salient ones")
    mask.add_argument("--fisher", choices=("sample", "batch"), help="whose gradients are squared; default sample")
    mask.add_argument("--fisher_samples", type=int, help="samples of each set; 0 is all; default 512")
    mask.add_argument("--fisher_batch_size", type=int, help="samples a chunk; default 32")
    return flags


def _switch(text: str) -> dict[str, Any]:
    return {"action": "store_const", "const": True, "help": text}
