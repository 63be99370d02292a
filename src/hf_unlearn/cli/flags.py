"""Flags that the training commands share, named as in diffusers' training scripts. Imports nothing heavy."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..common.limits import SEEDS, check_limits
from ..common.processes import is_first

if TYPE_CHECKING:
    from ..data.protocols import SizedDataset
    from ..families import Objective
    from ..training.config import UnlearnConfig

# Interval of each training flag, checked before anything is loaded.
LIMITS = {
    **dict.fromkeys(("train_batch_size", "max_train_steps", "extend_to", "gradient_accumulation_steps"), "[1, inf)"),
    **dict.fromkeys(("checkpoints_total_limit", "logging_steps"), "[1, inf)"),
    **dict.fromkeys(("lr_warmup_steps", "checkpointing_steps", "eval_steps", "dataloader_num_workers"), "[0, inf)"),
    **dict.fromkeys(("learning_rate", "adam_weight_decay", "max_grad_norm", "max_retain_drift"), "[0, inf)"),
    **dict.fromkeys(("adam_beta1", "adam_beta2"), "[0, 1)"),
    **dict.fromkeys(("adam_epsilon", "max_loss_ratio"), "(0, inf)"),
    "target_forget": "[0, 1]",
    "low_memory": "[0, inf)",
    "seed": SEEDS,
}


def flag(default: Any, text: str, *aliases: str) -> Any:
    """Return the field of a flag. `aliases` are its other spellings, which are taken but not shown."""
    spellings = {"aliases": [f"--{alias}" for alias in aliases]} if aliases else {}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": text, **spellings})
    return field(default=default, metadata={"help": text, **spellings})


@dataclass
class ImageDataFlags:
    """Images with classes: where they are, and which of them to forget."""

    dataset_name: str | None = flag(None, "Hub id of the training images.")
    dataset_config_name: str | None = flag(None, "Configuration of that data set.")
    train_data_dir: str | None = flag(None, "Folder of the training images: one folder per class, or parquet files.")
    forget_data_dir: str | None = flag(None, "Folder of the images to forget, which the training images do not hold.")
    forget_class: list[str] | None = flag(None, "Classes to forget, by name or number; may be repeated.")
    forget_indices: list[int] | None = flag(None, "Positions in the training images of those to forget.")
    image_column: str = flag("image", "Column that holds the images.")
    label_column: str = flag("label", "Column that holds the labels.")
    resolution: int | None = flag(None, "Height and width of the images; the default is the model's sample size.")
    center_crop: bool = flag(False, "Crop images to a square instead of squeezing them.")
    streaming: bool = flag(False, "Read the training images while training, from parquet or webdataset shards.")

    def __post_init__(self) -> None:
        check_limits(self, resolution="[1, inf)")
        self.classes: list[int] = []  # what forget_class says, once the data is read
        self.class_names: dict[int, str] = {}
        if self.streaming and (not self.forget_data_dir or self.forget_class or self.forget_indices):
            raise ValueError("--streaming reads the retain images once: give those to forget with --forget_data_dir")

    @property
    def source(self) -> str | None:
        return self.train_data_dir or self.dataset_name

    def choose_classes(self, names: dict[int, str]) -> None:
        """Look forget_class up among the class names of the data. ValueError for a class that it does not have."""
        from ..data.class_names import class_numbers

        self.class_names, self.classes = names, class_numbers(self.forget_class or [], names)

    def say_classes(self) -> None:
        """Print which classes are forgotten, where they have names, in the first process."""
        if self.classes and self.class_names and is_first():
            print(f"to forget: {self.forgotten}")

    @property
    def says_what(self) -> bool:
        """Whether any flag names what to forget."""
        return bool(self.forget_class or self.forget_data_dir or self.forget_indices)

    @property
    def forgotten(self) -> str:
        """What is forgotten, in words."""
        if self.forget_class:
            from ..data.class_names import in_words

            named = [in_words(number, self.class_names) for number in self.classes] or map(str, self.forget_class)
            return f"class {', '.join(named)}"
        return f"{len(self.forget_indices)} training images" if self.forget_indices else "chosen images"

    @property
    def sources(self) -> dict[str, str]:
        """Where the forget and the retain data come from."""
        trained = self.source or "scikit-learn digits"
        return {"forget": self.forget_data_dir or trained, "retain": trained}


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

    use_lora: bool | None = field(  # None, where the flag is not given, is no
        default=None,
        metadata={
            "help": "Train a low-rank adapter; it alone is saved, unless --merge is given.",
            "nargs": "?",
            "const": True,
        },
    )
    rank: int = flag(4, "LoRA rank; with --lora_select saliency, the average rank that --rank_budget assumes.")
    lora_alpha: float | None = flag(None, "LoRA scale times the rank; the default is the rank, which is scale 1.")
    lora_select: Literal["saliency", "all", "xattn"] = flag(
        "saliency", "Layers that get an adapter: chosen and ranked by their Fishers, all, or the cross-attention."
    )
    rank_budget: float = flag(
        0.5, "With --lora_select saliency: the adapter's size, as a share of that of --rank on all layers."
    )
    merge: bool = flag(False, "Save merged weights; the adapter stays beside them.")
    base_precision: Literal["fp32", "bf16", "fp16", "nf4", "int8"] | None = flag(
        None,
        "Precision of the frozen weights; nf4 and int8 are bitsandbytes' (hf-unlearn[quantised]). The default is that "
        "of their files, and fp32 with --merge.",
    )

    def __post_init__(self):
        others = [f.name for f in fields(self) if f.name != "use_lora" and getattr(self, f.name) != f.default]
        if others and not self.use_lora:
            raise ValueError(f"--{others[0]} is for adapters: add --use_lora")
        check_limits(self, rank="[1, inf)", lora_alpha="(0, inf)", rank_budget="(0, 1]")
        if self.base_precision is not None:
            from ..saliency.bases import check_base

            check_base(self.base_precision, self.merge)

    def apply(
        self, objective: "Objective", forget: "SizedDataset", retain: "SizedDataset", training: "TrainingFlags"
    ) -> None:
        """Give the objective its adapter, if the flags say so, else have all weights in full precision to be trained.

        Raises what `choose_lora` and `add_lora` raise.
        """
        from ..common.precisions import in_full, precision_name

        kept = "fp32" if self.merge else precision_name(objective.network)
        if not self.use_lora or self.merge or self.lora_select == "saliency":  # Fishers are those of full precision
            in_full(objective.network)
        if self.use_lora:
            from ..saliency.ranks import add_lora, choose_lora

            if training.gradient_checkpointing and objective.checkpointable:  # the Fisher pass too
                objective.activation_checkpointing_enable()
            sizes = (self.lora_select, self.rank, self.lora_alpha, self.rank_budget)
            batch, seed = training.train_batch_size, training.seed
            config = choose_lora(objective, forget, retain, *sizes, seed=seed, train_batch_size=batch)
            add_lora(objective, config, self.merge, seed, self.base_precision or kept)


@dataclass
class TrainingFlags:
    """diffusers' names for what UnlearnConfig (transformers' TrainingArguments) calls otherwise."""

    extension: ClassVar[int] = 1  # a run whose steps are not set may take so many times as many
    own_rate: ClassVar[float] = 5e-4  # learning rate of methods that need one, where none is given

    output_dir: str = flag("unlearned", "Folder where the result is written.")
    train_batch_size: int = flag(64, "Forget samples, and retain samples, per device.", "per_device_train_batch_size")
    max_train_steps: int = flag(50, "Outer steps: each is a forget step with its retain steps.", "max_steps")
    extend_to: int | None = flag(None, "Most steps while it comes closer; of ddpm and classify 200, else none more.")
    learning_rate: float | None = flag(
        None, "Learning rate of the retain steps; without one SFR-on finds its strength itself."
    )
    lr_scheduler: str = flag("cosine", "Schedule of both learning rates.", "lr_scheduler_type")
    lr_warmup_steps: int = flag(0, "Outer steps of warm-up.", "warmup_steps")
    adam_beta1: float = flag(0.9, "Adam beta1 of the retain steps.")
    adam_beta2: float = flag(0.999, "Adam beta2 of the retain steps.")
    adam_epsilon: float = flag(1e-8, "Adam epsilon of the retain steps.")
    adam_weight_decay: float = flag(0.0, "Weight decay of the retain steps.", "weight_decay")
    max_grad_norm: float = flag(1.0, "Norm to which the retain gradient is clipped; 0 does not clip.")
    gradient_accumulation_steps: int = flag(1, "Batches per optimizer step; methods with fast steps need 1.")
    gradient_checkpointing: bool = flag(False, "Compute activations twice to save memory.", "activation_checkpointing")
    offload: bool = flag(
        False, "Keep the original's copy and the slow weights in host memory: less on the GPU, slower."
    )
    use_8bit_adam: bool = flag(False, "Keep Adam's moments of all steps in 8 bits: 2 bytes a weight instead of 8.")
    masked_moments: bool = flag(False, "Keep the forget moments of the weights in the mask alone: the same result.")
    bf16_weights: bool = flag(False, "Keep trained weights and gradients in bf16, rounded stochastically.")
    original_precision: Literal["fp32", "bf16", "fp16", "nf4", "int8"] = flag(
        "fp32", "Precision of the frozen original that is kept beside all weights."
    )
    mixed_precision: Literal["no", "fp16", "bf16"] | None = flag(
        None, "Precision of the forward pass; the default is accelerate's."
    )
    low_memory: float | None = field(
        default=None,
        metadata={
            "help": "Pick what saves memory until the run fits what is free, or so many GB, and say what was picked.",
            "nargs": "?",
            "const": 0.0,
        },
    )
    dataloader_num_workers: int = flag(0, "Processes that load images.")
    seed: int = flag(0, "Random seed.")
    checkpointing_steps: int = flag(0, "Outer steps between checkpoints; 0 saves none.")
    checkpoints_total_limit: int | None = flag(None, "Number of checkpoints to keep.", "save_total_limit")
    resume_from_checkpoint: str | None = flag(
        None, "Checkpoint folder to resume from, `latest`, or `auto` (the latest if there is one)."
    )
    logging_steps: int = flag(10, "Outer steps between log lines.")
    report_to: list[str] = flag(["none"], "Trackers to report to: tensorboard, wandb, trackio, ... or none.")
    eval_steps: int | None = flag(None, "Outer steps between evaluations; the default evaluates at the ends only.")
    target_forget: float | None = flag(
        None, "Stop once this part, or less, of the way to the anchor is left for the forget samples (0.1)."
    )
    max_retain_drift: float | None = flag(
        None, "Stop once retained outputs are this far from the original's, in units of that way (0.1)."
    )
    max_loss_ratio: float = flag(20.0, "Stop as diverged once the retain loss is this many times the original's.")
    mask_path: str | None = flag(None, "File of weight masks to use instead of computing them.")
    attack: Literal["none", "quick", "full"] = flag(
        "none", "Attack the result once it is saved, as `hf-unlearn attack` does: not, shortly, or with all attacks."
    )
    push_to_hub: bool = flag(False, "Upload the result to the Hub.")
    hub_model_id: str | None = flag(None, "Repository, user/name; the default is the output folder's name.")
    hub_token: str | None = field(
        default=None,
        repr=False,
        metadata={"help": "Token for the Hub; the default is HF_TOKEN, or the login of `hf auth login`."},
    )
    hub_private_repo: bool = flag(False, "Make the repository private.")
    push_masks: bool = flag(False, "Upload the masks too, which stay local otherwise.")
    dry_run: bool = flag(False, "Print the whole resolved configuration as YAML, and exit.")

    def __post_init__(self):
        if self.mixed_precision not in (None, "no", "fp16", "bf16"):
            raise ValueError(f"mixed_precision must be no, fp16 or bf16, got {self.mixed_precision!r}")
        check_limits(self, **LIMITS)
        check_token_stays_local(self.hub_token, self.report_to)
        if (self.target_forget is not None or self.max_retain_drift is not None) and not self.eval_steps:
            self.eval_steps = 10

    @property
    def find_strength(self) -> bool:
        """Whether a method that can finds its strength: no learning rate is given."""
        return self.learning_rate is None

    @property
    def most_steps(self) -> int:
        """The outer steps that a run which finds its strength may be extended to."""
        times = self.extension if self.max_train_steps == type(self).max_train_steps else 1
        return self.extend_to or times * self.max_train_steps

    def config(self, **others: Any) -> "UnlearnConfig":
        """Return the UnlearnConfig these flags mean; `others` are fields of it, and win."""
        from ..training.config import UnlearnConfig

        same: tuple[str, ...] = (
            "output_dir",
            "adam_beta1",
            "adam_beta2",
            "adam_epsilon",
            "max_grad_norm",
            "offload",
            *("use_8bit_adam", "masked_moments", "bf16_weights", "original_precision"),
        )
        same += ("gradient_accumulation_steps", "dataloader_num_workers", "seed", "logging_steps", "report_to")
        same += ("target_forget", "max_retain_drift", "max_loss_ratio", "hub_token")
        renamed: dict[str, Any] = {
            "per_device_train_batch_size": self.train_batch_size,
            "per_device_eval_batch_size": self.train_batch_size,
            "max_steps": self.max_train_steps,
            "extend_to": self.most_steps,
            "find_strength": self.find_strength,
            "learning_rate": self.own_rate if self.learning_rate is None else self.learning_rate,
            "lr_scheduler_type": self.lr_scheduler,
            "warmup_steps": self.lr_warmup_steps,
            "weight_decay": self.adam_weight_decay,
            "activation_checkpointing": self.gradient_checkpointing,
            "optim": "adamw_torch_fused",
            "fp16": self.mixed_precision == "fp16",
            "bf16": self.mixed_precision == "bf16",
            "save_strategy": "steps" if self.checkpointing_steps else "no",
            "save_steps": self.checkpointing_steps or 500,
            "save_total_limit": self.checkpoints_total_limit,
            "eval_strategy": "steps" if self.eval_steps else "no",
            "eval_steps": self.eval_steps or None,
        }
        if others.get("num_train_epochs") is not None:
            if self.max_train_steps != type(self).max_train_steps or self.extend_to is not None:
                raise ValueError("--num_train_epochs says when to stop: leave --max_train_steps and --extend_to out")
            renamed |= {"max_steps": -1, "extend_to": None}
        return UnlearnConfig(**{**{name: getattr(self, name) for name in same}, **renamed, **others})
