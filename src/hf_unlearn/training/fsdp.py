"""What the loop does differently where FSDP2 shards the weights over processes, and which launches do not work.

The masks, the Fisher and the copy of the original are made while every process still has whole weights; the shards
of the masks and of the copy are then made like those of the weights. After the last step the network is gathered, so
that exporting, checking and measuring are the same code as for one process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import Trainer

from ..common.sharding import fill, load_shards, save_shards, shard_names, skeleton, unshard
from ..families.base import Objective
from ..methods import Method
from ..saving.adapters import put_network
from .config import UnlearnConfig
from .optim import FastSlow
from .optim_shards import load_named_tensors, named_tensors
from .reference import Reference
from .savings import check_savings

SHARDS = "shards"  # in a checkpoint: weights and optimizer states, a file for each process
LAUNCH = "launch with --config_file $(hf-unlearn env --accelerate_config {0}) ({0}.yaml)"
DDP = LAUNCH.format("multi_gpu")
FSDP2 = LAUNCH.format("fsdp2")


def check_launch(
    objective: Objective, method: Method, args: UnlearnConfig, accelerator: Accelerator, deepspeed: bool, fsdp: bool
) -> None:
    """Raise ValueError, with what to use, for ways of running in which the method would not do what it says."""
    if deepspeed and (method.fast_steps or method.masks_every_step or method.optimizer != Method().optimizer):
        raise ValueError(
            f"{method.name} steps and masks weights by itself, which DeepSpeed's engine does in its place: {FSDP2}"
        )
    check_savings(objective, method, args, fsdp)
    if not fsdp:
        return
    plugin = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise ValueError(
            f"FSDP version 1 flattens the weights, so that no mask fits them: set fsdp_version: 2, or {FSDP2}"
        )
    if plugin.cpu_ram_efficient_loading:
        raise ValueError("masks and Fishers need whole weights first: set fsdp_cpu_ram_efficient_loading: false")
    if args.offload:
        raise ValueError("offload and FSDP are two ways to the same room: leave offload out")
    if objective.adapter is not None:
        raise ValueError(f"an adapter is too small to be cut: {DDP}")
    if method.reads_whole_weights:
        raise ValueError(f"{method.name} computes with whole weights in every step with these options: {DDP}")


class Fsdp:
    """The part of the trainer that follows the weights into shards and back. Without FSDP it does nothing.

    Args:
        enabled: whether the run was launched with FSDP.
    """

    def __init__(
        self,
        enabled: bool,
        objective: Objective,
        args: UnlearnConfig,
        accelerator: Accelerator,
        reference: Reference,
    ):
        self.enabled, self.objective, self.args = enabled, objective, args
        self.accelerator, self.reference = accelerator, reference
        self._skeleton: torch.nn.Module | None = None  # of the network, while that is sharded

    @property
    def sharded(self) -> bool:
        """Whether the weights are, or are about to be, in shards."""
        return self._skeleton is not None

    # ---- whole -> sharded -> whole -----------------------------------------------------------------
    def place_whole(self, trained: bool) -> None:
        """Put the whole network on the device if something is measured there before the weights are sharded.

        FSDP itself takes one part after the other there: the network need not fit where the masks are given.

        Raises:
            ValueError: it has been sharded in an earlier call of `train` (`trained`).
        """
        if not self.enabled:
            return
        if trained:
            raise ValueError("with FSDP a trainer trains once: make another one")
        if self.reference.measures_first:
            self.objective.to(self.args.device)

    def before_sharding(self) -> None:
        """Keep what `gather` needs and shard the original."""
        if not self.enabled:
            return
        self._skeleton = skeleton(self.objective.network)
        original = self.reference.original
        if original is not None:
            from accelerate.utils import fsdp2_prepare_model

            sharded: Any = fsdp2_prepare_model(self.accelerator, original)
            sharded.set_reshard_after_forward(True)  # no backward would ever do it
            self.reference.original = sharded

    def relink(self, fast_slow: FastSlow) -> None:
        """After the weights were sharded: have the optimizer hold the shards of buffers and forget steps too."""
        fast_slow.relink(b for b in self.objective.network.buffers() if b.is_floating_point())

    def gather(self) -> bool:
        """Give every process the whole network back; return whether it was sharded. Every process must call it."""
        if self._skeleton is None:
            return False
        network = fill(self._skeleton, self.objective.network, self.args.device)
        unshard(self.objective)
        put_network(self.objective, network)
        self._skeleton, self.reference.original = None, None
        self.accelerator._models.clear()
        return True

    @contextmanager
    def evaluating(self, trainer: Trainer) -> Iterator[None]:
        """Inside, a network that is not sharded is evaluated as it is: transformers would shard it for that."""
        enabled, trainer.is_fsdp_enabled = trainer.is_fsdp_enabled, self.sharded
        try:
            yield
        finally:
            trainer.is_fsdp_enabled = enabled

    # ---- checkpoints: safetensors, a file for each process (accelerate's are pickles) ------------
    def _names(self) -> dict[int, str]:
        return {id(p): name for name, p in self.objective.named_parameters()}

    def save(self, stock: Callable[[str], None], folder: str, fast_slow: FastSlow, scheduler: Any) -> None:
        """Write weights and optimizer states, each process its own shards. Every process must call it.

        Args:
            stock: what transformers does with weights that are not sharded; so in the next two methods.
        """
        if not self.sharded:
            return stock(folder)
        weights = {f"weights.{name}": t for name, t in self.objective.state_dict().items()}
        save_shards(Path(folder) / SHARDS, {**weights, **named_tensors(fast_slow, self._names())})
        if self.args.should_save:
            torch.save(scheduler.state_dict(), Path(folder) / "scheduler.pt")

    def load_weights(self, stock: Callable[[str], None], folder: str) -> None:
        """Fill the weights from a checkpoint.

        Raises:
            ValueError: it was written with FSDP and this run has none, or the other way round.
        """
        shards = Path(folder) / SHARDS
        if shards.is_dir() != self.sharded:
            wrote = "with" if shards.is_dir() else "without"
            raise ValueError(f"{folder} was written {wrote} FSDP: resume with the same launch")
        if not self.sharded:
            return stock(folder)
        load_shards(shards, {f"weights.{name}": t for name, t in self.objective.state_dict().items()})

    def load_optimizer(
        self, stock: Callable[[str | None], None], folder: str | None, fast_slow: FastSlow, scheduler: Any
    ) -> None:
        """Take back the optimizer states and the schedule of a checkpoint, if there is one."""
        if folder is None or not self.sharded:
            return stock(folder)
        shards = Path(folder) / SHARDS
        stored = {name for name in shard_names(shards) if not name.startswith("weights.")}
        load_named_tensors(fast_slow, stored, self._names(), lambda tensors: load_shards(shards, tensors))
        scheduler.load_state_dict(torch.load(Path(folder) / "scheduler.pt", weights_only=True))
