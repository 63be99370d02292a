"""Training arguments: those of transformers, with defaults for unlearning and a two-sided early stop."""

import os
import shutil
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from transformers import TrainingArguments

from ..common.devices import check_joined, is_launched, runs_on_cpu
from ..common.limits import SEEDS, check_limits

CLASSIFIER_RATE = 1e-4  # the learning rate of `hf-unlearn classify`, and of the first trial of a comparison's search
# Options of transformers that would act on the weights or the loss behind the method's back: how they are left alone
# (the value at which they do nothing), and what to do instead.
REFUSED: dict[str, tuple[Any, str]] = {
    "label_smoothing_factor": (0, "a method says itself which loss it takes"),
    "neftune_noise_alpha": (None, "it is for language models"),
    "auto_find_batch_size": (False, "it starts again from weights that have moved; set per_device_train_batch_size"),
    "fp16_full_eval": (False, "it casts the weights that are trained; set fp16"),
    "bf16_full_eval": (False, "it casts the weights that are trained; set bf16"),
    "use_liger_kernel": (False, "it is for language models"),
}
LOSSES = ("eval_forget_loss", "eval_retain_loss", "eval_forget_score", "eval_retain_drift")  # lower is better
STEPS = 50
RATE = 5e-4  # of methods that need one, where none is given


@dataclass(repr=False)  # TrainingArguments' own leaves the token out
class UnlearnConfig(TrainingArguments):
    """transformers' training arguments, where `max_steps` counts *outer* steps.

    One outer step is the method's fast steps, its final step and the slow merge. Methods with fast steps need
    `gradient_accumulation_steps=1`.
    """

    output_dir: str | None = field(default="unlearned", metadata={"help": "Folder to write the result to."})
    per_device_train_batch_size: int = field(
        default=64, metadata={"help": "Forget samples per device, and as many retain samples."}
    )
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Evaluation batch size per device."})
    max_steps: int | None = field(  # type: ignore[assignment]  # an int once the arguments are made
        default=None,
        metadata={"help": f"Number of outer steps; it wins over num_train_epochs. The default is {STEPS}."},
    )
    extend_to: int | None = field(
        default=None,
        metadata={
            "help": "A run that finds its strength and has not forgotten after max_steps goes on while it comes "
            "closer, to at most so many outer steps. By default it does not."
        },
    )
    num_train_epochs: float | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "Passes over the larger one of the two sets, in place of max_steps."},
    )
    learning_rate: float = field(  # a float once the arguments are made
        default=None,  # type: ignore[assignment]
        metadata={
            "help": "Learning rate of the retain steps. Without one a method that can finds its strength itself, and "
            f"others take {RATE:g}."
        },
    )
    find_strength: bool | None = field(
        default=None,
        metadata={"help": "Whether a method that can finds its strength; by default if no learning_rate is given."},
    )
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Scheduler of both learning rates."})
    logging_steps: float = field(default=10, metadata={"help": "Outer steps between log lines."})
    save_strategy: str = field(default="no", metadata={"help": "When to save checkpoints: no, steps, epoch or best."})
    optim: str = field(default="adamw_torch_fused", metadata={"help": "Optimizer of the retain steps."})
    activation_checkpointing: bool | None = field(
        default=None,
        metadata={"help": "Compute activations twice to save memory.", "nargs": "?", "const": True},
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay False: batches are nested."})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "See transformers."})
    ddp_broadcast_buffers: bool | None = field(default=False, metadata={"help": "See transformers."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Must stay False: logs must show divergence."}
    )
    dataloader_pin_memory: bool = field(default=False, metadata={"help": "Pin host memory; set it with a GPU."})

    hub_strategy: str = field(default="end", metadata={"help": "Must be end: checkpoints stay local."})

    push_masks: bool = field(default=False, metadata={"help": "Upload the masks too; by default they stay local."})

    target_forget: float | None = field(
        default=None,
        metadata={
            "help": "Stop once eval_forget_score, the part of the way to the anchor that is left, is at most this."
        },
    )
    max_retain_drift: float | None = field(
        default=None,
        metadata={
            "help": "Stop once retained outputs are farther than this from the original's, in units of the way that "
            "the forgotten ones have to go, such as 0.1."
        },
    )
    guard_steps: int = field(
        default=25, metadata={"help": "Outer steps between snapshots of the last good weights; 0 takes none."}
    )
    max_loss_ratio: float = field(
        default=20.0, metadata={"help": "A retain loss of this many times the original's counts as divergence."}
    )
    verify_mask_steps: int = field(
        default=25,
        metadata={"help": "Outer steps between checks that weights outside the mask stayed; 0 never checks."},
    )

    checkpoint_on_interrupt: bool = field(
        default=True, metadata={"help": "Write a checkpoint after the outer step in which Ctrl-C is pressed."}
    )

    offload: bool = field(
        default=False,
        metadata={
            "help": "Keep the original model and the slow weights in host memory: saves GPU memory, costs time."
        },
    )

    use_8bit_adam: bool = field(
        default=False, metadata={"help": "Keep Adam's moments of all steps in 8 bits: 2 bytes a weight instead of 8."}
    )
    masked_moments: bool = field(
        default=False,
        metadata={"help": "Keep the forget optimizer's moments of the weights in the mask alone: the same result."},
    )
    bf16_weights: bool = field(
        default=False,
        metadata={"help": "Keep the trained weights and their gradients in bf16, rounded stochastically."},
    )
    original_precision: str = field(
        default="fp32",
        metadata={"help": "Precision of the frozen original beside all weights: fp32, bf16, fp16, nf4 or int8."},
    )

    @property
    def draws_seed(self) -> int:
        """The seed of all random draws: `data_seed` if it is set, else `seed`."""
        return self.data_seed if self.data_seed is not None else self.seed

    @property
    def checkpoints_activations(self) -> bool:
        """Whether activations are computed again in the backward pass; older versions of transformers name it so."""
        names = ("activation_checkpointing", "gradient_checkpointing")
        return any(getattr(self, name, None) for name in names)

    @classmethod
    def quiet(cls, **values: Any) -> "UnlearnConfig":
        """Build a configuration without progress bar, logs, snapshots and checks. `values` take precedence."""
        silent = {"disable_tqdm": True, "logging_strategy": "no", "guard_steps": 0, "verify_mask_steps": 0}
        return cls(**{**silent, "checkpoint_on_interrupt": False, **values})

    def __post_init__(self):
        check_precision("fp16" if self.fp16 else None, self.use_cpu)
        if (self.bf16 or is_launched()) and runs_on_cpu():
            self.use_cpu = True  # for bf16, and to join processes, it must be said where the CPU is the only device
        if self.max_steps is None:
            self.max_steps = STEPS if self.num_train_epochs is None else -1
        if self.extend_to is None:
            self.extend_to = self.max_steps
        if self.extend_to < self.max_steps:
            raise ValueError(f"extend_to is {self.extend_to}, below max_steps ({self.max_steps}): set as many or more")
        if self.find_strength is None:
            self.find_strength = self.learning_rate is None
        self.learning_rate = RATE if self.learning_rate is None else self.learning_rate
        if self.num_train_epochs is None:
            self.num_train_epochs = 3.0  # as transformers; `max_steps` wins
        if self.max_steps == 0:
            raise ValueError("max_steps is 0: set at least 1, or num_train_epochs")
        self._check_best()
        if self.activation_checkpointing and not hasattr(TrainingArguments, "activation_checkpointing"):
            self.gradient_checkpointing = True  # its name in transformers below 5.23
        super().__post_init__()
        check_joined(self.world_size)
        check_limits(
            self,
            per_device_train_batch_size="[1, inf)",
            per_device_eval_batch_size="[1, inf)",
            gradient_accumulation_steps="[1, inf)",
            learning_rate="[0, inf)",
            seed=SEEDS,
            data_seed=SEEDS,
        )
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns must be False: forget and retain batches are nested")
        if str(getattr(self.hub_strategy, "value", self.hub_strategy)) != "end":
            raise ValueError("hub_strategy must be 'end': checkpoints hold masks, which stay local")
        if self.eval_strategy == "no" and (self.target_forget is not None or self.max_retain_drift is not None):
            raise ValueError("target_forget and max_retain_drift need evaluations: set eval_strategy and eval_steps")
        for name, (idle, why) in REFUSED.items():
            if getattr(self, name, idle) != idle:
                raise ValueError(f"{name} must be {idle} when a model unlearns: {why}")
        if self.bf16_weights and self.fp16:
            raise ValueError("bf16_weights and fp16 are two precisions of a step: leave one of them out")
        optim = str(getattr(self.optim, "value", self.optim))
        if (self.bf16_weights or self.use_8bit_adam) and not optim.startswith("adamw_torch"):
            raise ValueError(f"bf16_weights and use_8bit_adam have an AdamW of their own: leave optim={optim} out")
        self._check_software()

    def _check_best(self) -> None:
        """Say of the measures that a trainer adds which way is better. Raise ValueError if a best model has none."""
        kind = str(getattr(self.lr_scheduler_type, "value", self.lr_scheduler_type))
        wants = "load_best_model_at_end" if self.load_best_model_at_end else f"lr_scheduler_type {kind}"
        needs = self.load_best_model_at_end or kind in ("reduce_lr_on_plateau", "greedy")
        named = self.metric_for_best_model
        if needs and named in (None, "loss", "eval_loss"):
            raise ValueError(f"{wants} needs to know what is best: set metric_for_best_model, such as {LOSSES[1]}")
        if named in LOSSES or f"eval_{named}" in LOSSES:
            self.greater_is_better = False if self.greater_is_better is None else self.greater_is_better

    def _check_software(self) -> None:
        """Raise ValueError if the optimizer's package or the compiler of `torch_compile` is missing."""
        optim = str(getattr(self.optim, "value", self.optim))
        if ("8bit" in optim or "bnb" in optim or "paged" in optim) and not optim.startswith(("adamw_torch", "galore")):
            if find_spec("bitsandbytes") is None:
                raise ValueError(f"optim={optim} needs the extra hf_unlearn[adam8bit], or leave optim out")
        compilers = (os.environ.get("CXX"), "g++", "clang++", "c++")
        inductor = self.torch_compile and self.torch_compile_backend == "inductor"
        on_cpu = self.use_cpu or runs_on_cpu()
        if inductor and on_cpu and not any(name and shutil.which(name) for name in compilers):
            raise ValueError("torch_compile needs a C++ compiler on a CPU: install g++ or set CXX, or leave it out")


def check_precision(wanted: str | None, use_cpu: bool = False) -> None:
    """Raise ValueError for a mixed precision that the device has not: accelerate would train in fp32 and say nothing.

    Args:
        wanted: fp16, bf16, no, or None for accelerate's own setting.
        use_cpu: whether the CPU is asked for, whatever else there is.
    """
    wanted = wanted or os.environ.get("ACCELERATE_MIXED_PRECISION")
    if wanted == "fp16" and (use_cpu or runs_on_cpu()):
        raise ValueError(
            "mixed precision fp16 needs a GPU: on a CPU set bf16 (--mixed_precision bf16), or leave it out"
        )
