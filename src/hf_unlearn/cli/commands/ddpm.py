"""hf-unlearn ddpm: make a UNet2D diffusion pipeline forget a class or a set of images.

    hf-unlearn ddpm                     # forgets one digit of the shipped model
    hf-unlearn ddpm --forget_class 7 --output_dir without-7
    accelerate launch -m hf_unlearn ddpm --pretrained_model_name_or_path google/ddpm-cifar10-32 \\
        --train_data_dir photos --forget_data_dir photos-to-forget
"""

from dataclasses import dataclass
from typing import ClassVar

from ...common.limits import EXTENSION, check_limits
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
    pretrained_model_name_or_path: str | None = flag(
        None, "UNet2D pipeline: folder or Hub id; the default is the shipped model of the digits."
    )
    revision: str | None = flag(None, "Hub revision of the model.")
    variant: str | None = flag(None, "Variant of the weight files, such as fp16.")
    label_dropout: float = flag(0.1, "Share of the retain samples that are trained under the null label.")
    null_class: int | None = flag(None, "Class embedding that means no class.")
    antithetic: bool = flag(True, "Draw timesteps in pairs t, T-1-t, which lowers the variance; --no_antithetic.")


@dataclass
class SamplingFlags:
    guidance_scale: float = flag(1.5, "Guidance scale of the generated samples.")
    num_inference_steps: int = flag(10, "Sampling steps of the generated samples.")

    def __post_init__(self):
        check_limits(self, guidance_scale="[0, inf)", num_inference_steps="[1, 1000]")


@dataclass
class DDPMFlags(TrainingFlags):
    extension: ClassVar[int] = EXTENSION


def flag_classes() -> tuple[type, ...]:
    """The dataclasses of the command's flags, in the order in which `parse` returns them."""
    return ModelFlags, ImageDataFlags, SamplingFlags, SampleFlags, LoraFlags, DDPMFlags


def ddpm_command(argv: list[str]) -> None:
    """hf-unlearn ddpm"""
    from ..parsing import parse

    text = "Make a UNet2D diffusion pipeline forget a class or a set of images, and save what plain diffusers loads."
    parts = parse(flag_classes(), argv, text, prog="hf-unlearn ddpm", kinds=KINDS, basic=BASIC)
    from ..runs.ddpm import DDPMRun
    from ..runs.skeleton import execute

    execute(DDPMRun(parts), "ddpm", argv)
