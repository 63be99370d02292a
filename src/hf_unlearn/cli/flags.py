"""Flags shared by the scripts, named as in diffusers' training scripts."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from torch.utils.data import Dataset

from ..common.limits import SEEDS, check_limits
from ..data.images import digits
from ..data.pairs import forget_and_retain
from ..data.sources import load_images, stream_images
from ..data.streaming import RetainStream
from ..families import Objective
from ..families.latents import encode_images
from ..saliency.ranks import add_lora, choose_lora
from ..training.config import UnlearnConfig

# Interval of each training flag, checked before anything is loaded.
LIMITS = {
    **dict.fromkeys(("train_batch_size", "max_train_steps", "gradient_accumulation_steps"), "[1, inf)"),
    **dict.fromkeys(("checkpoints_total_limit", "logging_steps"), "[1, inf)"),
    **dict.fromkeys(("lr_warmup_steps", "checkpointing_steps", "eval_steps", "dataloader_num_workers"), "[0, inf)"),
    **dict.fromkeys(("learning_rate", "adam_weight_decay", "max_grad_norm", "max_retain_drift"), "[0, inf)"),
    **dict.fromkeys(("adam_beta1", "adam_beta2"), "[0, 1)"),
    **dict.fromkeys(("adam_epsilon", "max_loss_ratio"), "(0, inf)"),
    "target_forget": "[0, 1]",
    "seed": SEEDS,
}


@dataclass
class ImageDataFlags:
    """Images with classes: where they are, and which of them to forget."""

    dataset_name: str | None = field(default=None, metadata={"help": "Hub id of the training images"})
    dataset_config_name: str | None = field(default=None, metadata={"help": "configuration of that data set"})
    train_data_dir: str | None = field(default=None, metadata={"help": "imagefolder with the training images"})
    forget_data_dir: str | None = field(default=None, metadata={"help": "imagefolder with the images to forget"})
    forget_class: list[int] | None = field(default=None, metadata={"help": "class or classes to forget"})
    forget_indices: list[int] | None = field(default=None, metadata={"help": "positions in the training data"})
    image_column: str = field(default="image", metadata={"help": "column of the images"})
    label_column: str = field(default="label", metadata={"help": "column of the labels"})
    resolution: int | None = field(default=None, metadata={"help": "default: the model's sample size"})
    center_crop: bool = field(default=False, metadata={"help": "crop to a square instead of squeezing"})
    streaming: bool = field(
        default=False, metadata={"help": "read the training images as they come: parquet or webdataset shards"}
    )

    def __post_init__(self):
        check_limits(self, resolution="[1, inf)")
        if self.streaming and (not self.forget_data_dir or self.forget_class or self.forget_indices):
            raise ValueError("--streaming reads the retain images once: give those to forget with --forget_data_dir")

    @property
    def source(self) -> str | None:
        return self.train_data_dir or self.dataset_name

    @property
    def says_what(self) -> bool:
        """Whether any flag names what to forget."""
        return bool(self.forget_class or self.forget_data_dir or self.forget_indices)

    @property
    def forgotten(self) -> str:
        """What is forgotten, in words."""
        if self.forget_class:
            return f"class {', '.join(map(str, self.forget_class))}"
        return f"{len(self.forget_indices)} training images" if self.forget_indices else "chosen images"

    @property
    def sources(self) -> dict[str, str]:
        """Where the forget and the retain data come from."""
        trained = self.source or "scikit-learn digits"
        return {"forget": self.forget_data_dir or trained, "retain": trained}


def image_sets(data: ImageDataFlags, size: int, channels: int) -> tuple[Dataset, Dataset]:
    """(forget, retain) images as the flags say, `size` wide and high unless they give a resolution.

    Raises:
        ValueError: no data is named, or what loading and splitting raise.
    """
    if data.source is None:
        raise ValueError("no data: set --train_data_dir or --dataset_name to the images the model was trained on")
    columns = dict(image_column=data.image_column, label_column=data.label_column, center_crop=data.center_crop)
    options = dict(size=data.resolution or size, channels=channels, **columns)
    if data.streaming:
        streamed = stream_images(data.source, config_name=data.dataset_config_name, **options)
        return load_images(data.forget_data_dir, **options), RetainStream(streamed)
    everything = load_images(data.source, config_name=data.dataset_config_name, **options)
    chosen = load_images(data.forget_data_dir, **options) if data.forget_data_dir else None
    return forget_and_retain(everything, data.forget_class, data.forget_indices, chosen)


def check_token_stays_local(token: str | None, report_to: Sequence[str]) -> None:
    """Raise a ValueError if a tracker would record the command line, and with it the token that is given there."""
    recording = sorted(set(report_to) - {"none", "tensorboard"})
    if token and recording:
        raise ValueError(
            f"hub_token beside report_to={recording[0]}, which may record the command line: log in with "
            "`hf auth login` or set HF_TOKEN instead"
        )


@dataclass
class LoraFlags:
    """Train a low-rank adapter instead of the weights."""

    use_lora: bool = field(default=False, metadata={"help": "train an adapter; the result is one, unless --merge"})
    rank: int = field(default=4, metadata={"help": "of the adapter; with saliency the mean that the budget is of"})
    lora_alpha: float | None = field(default=None, metadata={"help": "scale times rank; default the rank"})
    lora_select: str = field(
        default="saliency", metadata={"help": "layers: saliency (ranks by the two Fishers), all, or xattn"}
    )
    rank_budget: float = field(
        default=0.5, metadata={"help": "with saliency: share of the weights that --rank on all layers would take"}
    )
    merge: bool = field(default=False, metadata={"help": "save merged weights; the adapter stays beside them"})

    def __post_init__(self):
        given = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        if given and not self.use_lora:
            raise ValueError(f"--{given[0]} is for adapters: add --use_lora")
        check_limits(self, rank="[1, inf)", lora_alpha="(0, inf)", rank_budget="(0, 1]")

    def apply(self, objective: Objective, forget: Dataset, retain: Dataset, seed: int) -> None:
        """Give the objective its adapter, if the flags say so.

        Raises:
            ValueError: what `lora.choose_lora` raises.
        """
        if self.use_lora:
            sizes = (self.lora_select, self.rank, self.lora_alpha, self.rank_budget)
            add_lora(objective, choose_lora(objective, forget, retain, *sizes, seed=seed), self.merge, seed)


def unet_sets(data: ImageDataFlags, pipeline: Any, default: bool) -> tuple[Dataset, Dataset]:
    """(forget, retain) images for a UNet2D pipeline; for the shipped one (`default`) the digits, of which it forgets
    the 3 where the flags do not say."""
    if data.source is None and default:
        if not data.says_what:
            data.forget_class = [3]
        return forget_and_retain(digits(), data.forget_class, data.forget_indices)
    return image_sets(data, pipeline.unet.config.sample_size, pipeline.unet.config.in_channels)


def latent_sets(
    data: ImageDataFlags, pipeline: Any, cache: str, flips: bool = False, device: Any = "cpu"
) -> tuple[Dataset, Dataset]:
    """(forget, retain) latents for a DiTPipeline, encoded once and kept in `cache`; its VAE ends on the CPU."""
    sets = decoded_sets(data, pipeline)
    pipeline.vae.to(device)
    forget, retain = (encode_images(pipeline.vae, images, cache, flips=flips) for images in sets)
    pipeline.vae.to("cpu")
    return forget, retain


def decoded_sets(data: ImageDataFlags, pipeline: Any) -> tuple[Dataset, Dataset]:
    """(forget, retain) images as a DiTPipeline's VAE gives them."""
    pixels = pipeline.transformer.config.sample_size * 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    if data.streaming:
        raise ValueError("--streaming is for pixels: latents are encoded once and kept")
    return image_sets(data, pixels, pipeline.vae.config.in_channels)


@dataclass
class JudgeFlags:
    """An image classifier that reads what a class-conditional model draws, before and after."""

    judge_model_name_or_path: str | None = field(
        default=None, metadata={"help": "image classifier with the model's class numbers: folder or Hub id"}
    )
    judge_revision: str | None = field(default=None, metadata={"help": "Hub revision of the judge"})
    eval_classes: list[int] | None = field(
        default=None, metadata={"help": "classes that it reads beside the forgotten ones; default nine of the data"}
    )
    eval_samples_per_class: int = field(default=100, metadata={"help": "samples for the table; 0 skips it"})

    def __post_init__(self):
        check_limits(self, eval_samples_per_class="[0, inf)")
        if self.eval_classes and not self.judge_model_name_or_path:
            raise ValueError("--eval_classes are read by a judge: set --judge_model_name_or_path")

    def judges(self, data: ImageDataFlags, conditional: bool) -> bool:
        """Whether there is a judge. Raises ValueError if there is nothing that it could read."""
        if self.judge_model_name_or_path is None or not self.eval_samples_per_class:
            return False
        if not data.forget_class or not conditional or data.streaming:
            why = "a model with classes" if not conditional else "data without --streaming and --forget_class"
            raise ValueError(f"--judge_model_name_or_path reads drawn classes: it needs {why}")
        return True


@dataclass
class TrainingFlags:
    """diffusers' names for what UnlearnConfig (transformers' TrainingArguments) calls otherwise."""

    output_dir: str = field(default="unlearned", metadata={"help": "where the result is written"})
    train_batch_size: int = field(default=64, metadata={"help": "forget and retain samples per device"})
    max_train_steps: int = field(default=50, metadata={"help": "outer steps"})
    learning_rate: float = field(default=5e-4, metadata={"help": "rate of the retain steps"})
    lr_scheduler: str = field(default="cosine", metadata={"help": "schedule of both learning rates"})
    lr_warmup_steps: int = field(default=0, metadata={"help": "outer steps of warm-up"})
    adam_beta1: float = field(default=0.9, metadata={"help": "of the retain optimizer"})
    adam_beta2: float = field(default=0.999, metadata={"help": "of the retain optimizer"})
    adam_epsilon: float = field(default=1e-8, metadata={"help": "of the retain optimizer"})
    adam_weight_decay: float = field(default=0.0, metadata={"help": "of the retain optimizer"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "clip of the retain gradient's norm; 0 is none"})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "1 for methods with fast steps"})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "less memory, more time"})
    offload: bool = field(
        default=False,
        metadata={"help": "keep the original's copy and the slow weights in host memory: less on the GPU, slower"},
    )
    use_8bit_adam: bool = field(
        default=False, metadata={"help": "8-bit states for the retain steps' Adam (hf-unlearn[adam8bit])"}
    )
    mixed_precision: str | None = field(default=None, metadata={"help": "no, fp16 or bf16; default accelerate's"})
    dataloader_num_workers: int = field(default=0, metadata={"help": "processes that load images"})
    seed: int = field(default=0, metadata={"help": "of everything random"})
    checkpointing_steps: int = field(default=0, metadata={"help": "outer steps between checkpoints; 0 is none"})
    checkpoints_total_limit: int | None = field(default=None, metadata={"help": "keep at most this many"})
    resume_from_checkpoint: str | None = field(
        default=None, metadata={"help": "a checkpoint folder, latest, or auto (latest if any)"}
    )
    logging_steps: int = field(default=10, metadata={"help": "outer steps between log lines"})
    report_to: str = field(default="none", metadata={"help": "tensorboard, wandb, trackio, ... or none"})
    eval_steps: int = field(default=0, metadata={"help": "outer steps between evaluations; 0 is none"})
    target_forget: float | None = field(
        default=None, metadata={"help": "stop once this share of the forget samples, or less, is still known"}
    )
    max_retain_drift: float | None = field(
        default=None, metadata={"help": "stop once the retain loss is this share above the original's"}
    )
    max_loss_ratio: float = field(default=20.0, metadata={"help": "a retain loss this many times the first diverged"})
    mask_path: str | None = field(default=None, metadata={"help": "weight masks to use instead of computing them"})
    push_to_hub: bool = field(default=False, metadata={"help": "upload the result"})
    hub_model_id: str | None = field(default=None, metadata={"help": "user/name; default the output folder's name"})
    hub_token: str | None = field(
        default=None, repr=False, metadata={"help": "default HF_TOKEN, or the login of `hf auth login`"}
    )
    hub_private_repo: bool = field(default=False, metadata={"help": "make the repository private"})
    push_masks: bool = field(default=False, metadata={"help": "upload the masks too, which stay local otherwise"})
    dry_run: bool = field(default=False, metadata={"help": "print the whole resolved configuration and stop"})

    def __post_init__(self):
        if self.mixed_precision not in (None, "no", "fp16", "bf16"):
            raise ValueError(f"mixed_precision must be no, fp16 or bf16, got {self.mixed_precision!r}")
        check_limits(self, **LIMITS)
        check_token_stays_local(self.hub_token, [self.report_to])
        if (self.target_forget is not None or self.max_retain_drift is not None) and not self.eval_steps:
            self.eval_steps = 10

    def config(self) -> UnlearnConfig:
        """The UnlearnConfig these flags mean."""
        return UnlearnConfig(
            output_dir=self.output_dir,
            per_device_train_batch_size=self.train_batch_size,
            per_device_eval_batch_size=self.train_batch_size,
            max_steps=self.max_train_steps,
            learning_rate=self.learning_rate,
            lr_scheduler_type=self.lr_scheduler,
            warmup_steps=self.lr_warmup_steps,
            adam_beta1=self.adam_beta1,
            adam_beta2=self.adam_beta2,
            adam_epsilon=self.adam_epsilon,
            weight_decay=self.adam_weight_decay,
            max_grad_norm=self.max_grad_norm,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
            activation_checkpointing=self.gradient_checkpointing,
            offload=self.offload,
            optim="adamw_bnb_8bit" if self.use_8bit_adam else "adamw_torch_fused",
            fp16=self.mixed_precision == "fp16",
            bf16=self.mixed_precision == "bf16",
            dataloader_num_workers=self.dataloader_num_workers,
            seed=self.seed,
            save_strategy="steps" if self.checkpointing_steps else "no",
            save_steps=self.checkpointing_steps or 500,
            save_total_limit=self.checkpoints_total_limit,
            logging_steps=self.logging_steps,
            report_to=self.report_to,
            eval_strategy="steps" if self.eval_steps else "no",
            eval_steps=self.eval_steps or None,
            target_forget=self.target_forget,
            max_retain_drift=self.max_retain_drift,
            max_loss_ratio=self.max_loss_ratio,
            hub_token=self.hub_token,
        )
