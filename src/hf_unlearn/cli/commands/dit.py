"""hf-unlearn dit: make a DiTPipeline forget a class or a set of images.

    accelerate launch -m hf_unlearn dit --pretrained_model_name_or_path facebook/DiT-XL-2-256 \\
        --train_data_dir imagenet/train --forget_class 207
"""

from dataclasses import dataclass
from typing import ClassVar

from ...common.limits import check_limits
from ..flags import ImageDataFlags, LoraFlags, TrainingFlags, flag
from ..sample_flags import SampleFlags

KINDS = ("diffusion",)
BASIC = (
    *("pretrained_model_name_or_path", "train_data_dir", "forget_class", "forget_data_dir", "forget_indices"),
    *("method", "preset", "output_dir", "max_train_steps", "train_batch_size", "learning_rate", "seed"),
    *("use_lora", "mixed_precision", "classifier_model_name_or_path", "push_to_hub"),
)


@dataclass
class ModelFlags:
    pretrained_model_name_or_path: str | None = flag(None, "DiTPipeline: folder or Hub id.")
    revision: str | None = flag(None, "Hub revision of the model.")
    variant: str | None = flag(None, "Variant of the weight files, such as fp16.")
    label_dropout: float = flag(0.1, "Share of the retain samples that are trained under the null label.")
    antithetic: bool = flag(True, "Draw timesteps in pairs t, T-1-t, which lowers the variance; --no_antithetic.")
    variance_weight: float = flag(0.0, "Weight of the variational term, which trains the learned variance.")
    random_flip: bool = flag(False, "Train on both flips of every image.")
    cache_dir: str | None = flag(None, "Folder of encoded latents; the default is OUTPUT_DIR/cache.")
    guidance_scale: float = flag(4.0, "Guidance scale of the generated samples; 1 without 1000 classes.")
    num_inference_steps: int = flag(50, "Sampling steps of the generated samples.")

    def __post_init__(self):
        check_limits(self, guidance_scale="[0, inf)", num_inference_steps="[1, 1000]", variance_weight="[0, inf)")


@dataclass
class DiTFlags(TrainingFlags):
    train_batch_size: int = flag(16, "Forget samples, and retain samples, per device.", "per_device_train_batch_size")
    max_train_steps: int = flag(100, "Outer steps: each is a forget step with its retain steps.", "max_steps")
    own_rate: ClassVar[float] = 1e-4


def flag_classes() -> tuple[type, ...]:
    """The dataclasses of the command's flags, in the order in which `parse` returns them."""
    return ModelFlags, ImageDataFlags, SampleFlags, LoraFlags, DiTFlags


def dit_command(argv: list[str]) -> None:
    """hf-unlearn dit"""
    from ..parsing import parse

    text = "Make a DiTPipeline forget a class or a set of images, and save what plain diffusers loads."
    parts = parse(flag_classes(), argv, text, prog="hf-unlearn dit", kinds=KINDS, basic=BASIC)
    from ..runs.dit import DiTRun
    from ..runs.skeleton import execute

    execute(DiTRun(parts), "dit", argv)
