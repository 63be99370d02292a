"""hf-unlearn augment: variants of the images that a classifier learns slowly, as an image folder.

    hf-unlearn augment                     # a small ViT, the digits, and the shipped digits DDPM
    hf-unlearn augment --model_name_or_path my-vit --train_dir photos --generator my-ddpm --output_dir variants
    hf-unlearn augment --model_name_or_path my-vit --train_dir photos --generator sd-folder \\
        --prompt "a photo of a {}" --train restart --optim sgd
"""

from ..augment_flags import RULES
from ..terminal import CommandParser, check_writable

WORDS = ("none", "restart", "continue")


def augment_command(argv: list[str]) -> None:
    """hf-unlearn augment"""
    options = _parser().parse_args(argv)
    check_writable(options.output_dir)
    from ..augmenting import run_augment

    run_augment(options)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="hf-unlearn augment",
        description="Find the images that a classifier learns slowly, draw variants of them, and write these as an "
        "image folder with metadata.jsonl. A killed run goes on where it was.",
    )
    add = parser.add_argument
    said = "Image classifier: folder or Hub id; by default a small ViT and the digits."
    add("--model_name_or_path", "--pretrained_model_name_or_path", help=said)
    said = "Folder or Hub id of the images: a train part, and a held-out part where --train is to be measured."
    add("--train_dir", "--train_data_dir", help=said)
    add("--image_column", default="image", help="Column that holds the images.")
    add("--label_column", default="label", help="Column that holds the labels.")
    add("--max_train_samples", type=int, help="Training images to take, spread evenly over the data.")
    said = (
        "Class-conditional UNet2D or DiT pipeline, or Stable Diffusion: folder or Hub id; for the digits their DDPM."
    )
    add("--generator", help=said)
    add("--output_dir", default="augmented", help="Folder to write the variants to.")
    said = (
        "Epochs of a new model of the classifier's architecture, of which the elbow of the training error is taken; "
    )
    add("--early_epochs", type=int, default=10, help=said + "0 takes the classifier as it is, from a few epochs.")
    add("--by", choices=RULES, default="clusters", help="How slow-learnt images are found.")
    add("--share", type=float, help="Share of each class for --by loss and random; by default 0.35.")
    add("--factor", type=int, default=2, help="How often a slow-learnt image then stands in the data (k).")
    said = "Share of the generator's chain in (0, 1); several are taken in turn."
    add("--strength", type=float, nargs="+", default=[0.5], help=said)
    add("--new_images", action="store_true", help="Allow a strength of 1: images from pure noise.")
    add("--num_inference_steps", type=int, default=50, help="Steps of the whole chain.")
    add("--guidance_scale", type=float, help="Classifier-free guidance; 1.5 with classes, 3 with texts by default.")
    add("--prompt", default="a photo of a {}", help="What Stable Diffusion is told; {} is the class's name.")
    add("--width", type=int, default=16, help="Images in each call of the generator's network.")
    said = "Classifier that refuses variants it reads as another class, or none; by default the one named, trained."
    add("--judge", help=said)
    add("--seed", type=int, default=0, help="Random seed.")
    said = "Train on images and variants afterwards: a new model, or the one at the elbow further on."
    add("--train", choices=WORDS, default="none", help=said)
    add("--optim", choices=("adamw", "sgd"), default="adamw", help="Optimizer of the training.")
    add("--sam", type=float, default=0.0, metavar="RHO", help="Radius of sharpness-aware minimisation; 0 is without.")
    add("--learning_rate", type=float, help="By default 0.002 for AdamW, 0.05 for SGD.")
    add("--max_train_steps", type=int, default=800, help="Steps of the training.")
    add("--train_batch_size", type=int, default=64, help="Images in a batch of the training.")
    return parser
