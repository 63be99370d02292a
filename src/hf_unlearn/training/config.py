"""Training arguments: those of transformers, with defaults for unlearning and a two-sided early stop."""

import os
import shutil
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from transformers import TrainingArguments

from ..common.limits import SEEDS, check_limits


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
    max_steps: int = field(default=50, metadata={"help": "Number of outer steps."})
    learning_rate: float = field(
        default=5e-4,
        metadata={
            "help": "Learning rate of the retain steps; 5e-4 suits the small shipped model, published DDPM runs "
            "use 1e-4."
        },
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
        metadata={"help": "Stop once eval_forget_score, the share of forget samples still known, is at most this."},
    )
    max_retain_drift: float | None = field(
        default=None,
        metadata={"help": "Stop once the retain evaluation loss exceeds the original's by this share, such as 0.05."},
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

    offload: bool = field(
        default=False,
        metadata={
            "help": "Keep the original model and the slow weights in host memory: saves GPU memory, costs time."
        },
    )

    @property
    def draws_seed(self) -> int:
        """The seed of all random draws: `data_seed` if it is set, else `seed`."""
        return self.data_seed if self.data_seed is not None else self.seed

    @classmethod
    def quiet(cls, **values: Any) -> "UnlearnConfig":
        """Build a configuration without progress bar, logs, snapshots and checks. `values` take precedence."""
        silent = {"disable_tqdm": True, "logging_strategy": "no", "guard_steps": 0, "verify_mask_steps": 0}
        return cls(**{**silent, **values})

    def __post_init__(self):
        others = (torch.cuda, torch.backends.mps, torch.xpu)
        if self.bf16 and not any(device.is_available() for device in others):
            self.use_cpu = True  # transformers requires it for bf16, even where the CPU is the only device
        if self.activation_checkpointing and not hasattr(TrainingArguments, "activation_checkpointing"):
            self.gradient_checkpointing = True  # its name in transformers below 5.23
        super().__post_init__()
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
        self._check_software()

    def _check_software(self) -> None:
        """Raise ValueError if the optimizer's package or the compiler of `torch_compile` is missing."""
        optim = str(getattr(self.optim, "value", self.optim))
        if ("8bit" in optim or "bnb" in optim or "paged" in optim) and not optim.startswith(("adamw_torch", "galore")):
            if find_spec("bitsandbytes") is None:
                raise ValueError(f"optim={optim} needs the extra hf_unlearn[adam8bit], or leave optim out")
        compilers = (os.environ.get("CXX"), "g++", "clang++", "c++")
        inductor = self.torch_compile and self.torch_compile_backend == "inductor"
        on_cpu = self.use_cpu or not torch.cuda.is_available()
        if inductor and on_cpu and not any(name and shutil.which(name) for name in compilers):
            raise ValueError("torch_compile needs a C++ compiler on a CPU: install g++ or set CXX, or leave it out")
