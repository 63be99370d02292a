"""hf-unlearn t2i: make a text-to-image pipeline forget a concept; `hf-unlearn sd` is the same.

    accelerate launch -m hf_unlearn t2i --concept nudity \\
        --pretrained_model_name_or_path stable-diffusion-v1-5/stable-diffusion-v1-5
    hf-unlearn t2i --pretrained_model_name_or_path FOLDER --concept "a church" --anchor_concept "a house"
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ...common.limits import check_limits
from ..flags import LoraFlags, TrainingFlags, flag

KINDS = ("diffusion", "text to image")
BASIC = (
    *("pretrained_model_name_or_path", "concept", "anchor_concept", "list_concepts", "train_method"),
    *("forget_data_dir", "retain_data_dir", "method", "preset", "output_dir", "max_train_steps", "train_batch_size"),
    *("learning_rate", "seed", "use_lora", "mixed_precision", "push_to_hub"),
)


@dataclass
class ModelFlags:
    pretrained_model_name_or_path: str | None = flag(
        None,
        "Stable Diffusion (1.x, 2.x, XL, 3, 3.5), Flux, Flux 2 klein, Sana, Qwen-Image or PixArt-Sigma: "
        "folder or Hub id; of Stable Diffusion and Flux a single .safetensors or .ckpt file too.",
    )
    model_config: str | None = flag(
        None,
        "Of a single file: folder or Hub id of a pipeline of the same architecture, of which only configurations and "
        "tokenizers are read. The default is the folder beside the file that has its name, else the published model "
        "that diffusers takes it for.",
    )
    revision: str | None = flag(None, "Hub revision of the model.")
    variant: str | None = flag(None, "Variant of the weight files, such as fp16.")
    train_method: Literal["full", "xattn", "noxattn", "selfattn", "text_encoder"] | None = flag(
        None,
        "Weights to train: all of the network, only or all but its cross-attention (in joint attention the text's "
        "projections), the attention of the image, or CLIP. Cross attention alone redirects the word and leaves the "
        "object. The default is all of the network or, where they do not fit the free memory, an adapter on all "
        "layers.",
    )
    weighting_scheme: Literal["none", "logit_normal", "sigma_sqrt", "cosmap"] | None = flag(
        None, "Of flow matching: how timesteps are drawn and errors weighted, as in diffusers; the default is none."
    )
    logit_mean: float | None = flag(None, "Mean of logit_normal; above 0 it draws less noise.")
    logit_std: float | None = flag(None, "Standard deviation of logit_normal.")
    label_dropout: float = flag(0.1, "Share of the retain samples that are trained under the empty prompt.")
    enable_xformers_memory_efficient_attention: bool = flag(
        False, "Use xformers' attention instead of torch's own (hf-unlearn[xformers])."
    )

    def __post_init__(self):
        if self.weighting_scheme != "logit_normal" and (self.logit_mean, self.logit_std) != (None, None):
            raise ValueError("logit_mean and logit_std are those of --weighting_scheme logit_normal: set it too")
        if self.logit_std is not None:
            check_limits(self, logit_std="(0, inf)")

    @property
    def flow(self) -> dict[str, Any]:
        """Options of `FlowSchedule` that are given."""
        given = {name: getattr(self, name) for name in ("weighting_scheme", "logit_mean", "logit_std")}
        return {name: value for name, value in given.items() if value is not None}


@dataclass
class ConceptFlags:
    concept: list[str] | None = flag(None, "What to forget: a preset or any words; may be repeated.")
    anchor_concept: str | None = flag(None, "What to generate instead.")
    prompt_templates: list[str] | None = flag(
        None, 'Prompts that ask for the concept; "{}" stands for it, such as "a drawing of {}".'
    )
    held_out_templates: list[str] | None = flag(
        None,
        "Such prompts that nothing is trained on, to measure whether forgetting goes beyond those that are; the "
        "default is every fourth of four or more prompt_templates, else four of our own.",
    )
    list_concepts: bool = flag(False, "Print the presets, and exit.")
    retain_prompts: list[str] | None = flag(None, "Prompts that must stay as they are; the default is a mixed list.")
    num_forget_images: int = flag(64, "Forget images that the model itself generates.")
    num_retain_images: int = flag(128, "Retain images that the model itself generates.")
    forget_dataset_name: str | None = flag(None, "Hub id of images to forget, instead of generated ones.")
    forget_data_dir: str | None = flag(None, "Folder of images to forget, instead of generated ones.")
    retain_dataset_name: str | None = flag(None, "Hub id of images to retain, instead of generated ones.")
    retain_data_dir: str | None = flag(None, "Folder of images to retain, instead of generated ones.")
    image_column: str = flag("image", "Column that holds the images.")
    caption_column: str = flag("text", "Column that holds the captions, if there is one.")
    center_crop: bool = flag(False, "Crop images to a square instead of squeezing them.")
    resolution: int | None = flag(
        None,
        "Height and width of the images: a multiple of 8, 16 or 32, as the model has it. The default is its own size.",
    )
    num_inference_steps: int = flag(30, "Sampling steps of generated images.")
    guidance_scale: float | None = flag(
        None, "Guidance scale of generated images; the default is 7.5, or what a later pipeline samples at."
    )
    drawing_batch_size: int = flag(4, "Images that are generated at a time.")
    cache_dir: str | None = flag(None, "Folder of latents and masks; the default is OUTPUT_DIR/cache.")

    def __post_init__(self):
        counts = ("num_forget_images", "num_retain_images", "drawing_batch_size", "resolution")
        limits = dict.fromkeys(counts, "[1, inf)")
        if self.guidance_scale is not None:
            check_limits(self, guidance_scale="[0, inf)")
        check_limits(self, num_inference_steps="[1, 1000]", **limits)

    @property
    def sources(self) -> dict[str, str]:
        """Where the forget and the retain images come from."""
        drawn = "drawn by the original model"
        return {
            "forget": self.forget_data_dir or self.forget_dataset_name or drawn,
            "retain": self.retain_data_dir or self.retain_dataset_name or drawn,
        }


@dataclass
class DiffusionFlags(TrainingFlags):
    train_batch_size: int = flag(4, "Forget samples, and retain samples, per device.", "per_device_train_batch_size")
    max_train_steps: int = flag(300, "Outer steps: each is a forget step with its retain steps.", "max_steps")
    own_rate: ClassVar[float] = 1e-5


def flag_classes() -> tuple[type, ...]:
    """The dataclasses of the command's flags, in the order in which `parse` returns them."""
    from ...evaluation.picture_prompts import PictureFlags

    return ModelFlags, ConceptFlags, PictureFlags, LoraFlags, DiffusionFlags


def t2i_command(argv: list[str], name: str = "t2i") -> None:
    """hf-unlearn t2i --concept ...; `name` is the command's."""
    if "--list_concepts" in argv:
        from ...families.concepts import list_concepts

        print(list_concepts())
        return
    from ..parsing import parse

    text = "Make a text-to-image pipeline forget a concept, and save what plain diffusers loads."
    parts = parse(flag_classes(), argv, text, prog=f"hf-unlearn {name}", kinds=KINDS, basic=BASIC)
    from ..runs.sd import TextToImageRun
    from ..runs.skeleton import execute

    execute(TextToImageRun(parts), name, argv)
