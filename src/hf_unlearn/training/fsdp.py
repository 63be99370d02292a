"""What the loop does differently where the weights are cut over processes (FSDP2), and which launches do not work.

The masks, the Fisher and the copy of the original are made while every process still has whole weights; the shards
of the masks and of the copy are then cut like the weights. After the last step the network is whole again, so that
exporting, checking and measuring are the same code as for one process.
"""

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import fsdp2_prepare_model
from transformers import Trainer

from ..common.sharding import fill, load_shards, save_shards, shard_names, skeleton, unshard
from ..methods import Method
from ..saving.adapters import put_network

SHARDS = "shards"  # in a checkpoint: weights and optimizer states, a file for each process
DDP = "launch with scripts/accelerate/multi_gpu.yaml"


class ShardedTrainer(Trainer):
    """The sharding part of UnlearnTrainer, which has `objective`, `method`, `fast_slow`, `masks` and `original`."""

    _skeleton: torch.nn.Module | None = None  # of the network, while that is cut

    def check_launch(self) -> None:
        """Raise ValueError, with what to use, for ways of running in which the method would not do what it says."""
        method = self.method
        if self.is_deepspeed_enabled and (
            method.fast_steps or method.masks_every_step or method.optimizer != Method().optimizer
        ):
            raise ValueError(
                f"{method.name} steps and masks weights by itself, which DeepSpeed's engine does in its place: "
                "launch with scripts/accelerate/fsdp2.yaml"
            )
        if not self.is_fsdp_enabled:
            return
        plugin = self.accelerator.state.fsdp_plugin
        if plugin.fsdp_version != 2:
            raise ValueError(
                "FSDP version 1 flattens the weights, so that no mask fits them: set fsdp_version: 2 as in "
                "scripts/accelerate/fsdp2.yaml"
            )
        if plugin.cpu_ram_efficient_loading:
            raise ValueError("masks and Fishers need whole weights first: set fsdp_cpu_ram_efficient_loading: false")
        if self.args.offload:
            raise ValueError("offload and FSDP are two ways to the same room: leave offload out")
        if self.objective.adapter is not None:
            raise ValueError(f"an adapter is too small to be cut: {DDP}")
        if not method.shards:
            raise ValueError(f"{method.name} computes with whole weights in every step: {DDP}")

    # ---- whole -> cut -> whole -------------------------------------------------------------------
    def _place_whole(self) -> None:
        """Put the whole network on the device if something is measured there before the weights are cut: FSDP itself
        takes one part after the other there. It need not fit where the masks are given."""
        if not self.is_fsdp_enabled:
            return
        if self.fast_slow is not None:
            raise ValueError("with FSDP a trainer trains once: make another one")
        if self._lacks_masks or self._wants_profile or self.args.eval_strategy != "no":
            self.objective.to(self.args.device)

    def _before_cutting(self) -> None:
        if not self.is_fsdp_enabled:
            return
        self._skeleton = skeleton(self.objective.network)
        if self.original is not None:
            self.original = fsdp2_prepare_model(self.accelerator, self.original)
            self.original.set_reshard_after_forward(True)  # no backward would ever do it

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """Called right after the weights were cut: whatever goes with them is cut too."""
        if self._skeleton is not None:
            self.fast_slow.relink(b for b in self.objective.network.buffers() if b.is_floating_point())
            self._bind_masks()
        return super().create_scheduler(num_training_steps, optimizer)

    def _make_whole(self) -> None:
        """Give every process the whole network back. Every process must call it."""
        if self._skeleton is None:
            return
        network = fill(self._skeleton, self.objective.network, self.args.device)
        unshard(self.objective)
        put_network(self.objective, network)
        self._skeleton, self.original = None, None
        self.model = self.model_wrapped = self._wrapped = self.objective
        self.accelerator._models.clear()

    def evaluation_loop(self, *args: Any, **kwargs: Any):
        """A network that is still or again whole is evaluated as it is: transformers would cut it for that."""
        sharded, self.is_fsdp_enabled = self.is_fsdp_enabled, self._skeleton is not None
        try:
            return super().evaluation_loop(*args, **kwargs)
        finally:
            self.is_fsdp_enabled = sharded

    # ---- checkpoints: safetensors, a file for each process (accelerate's are pickles) ------------
    def _names(self) -> dict[int, str]:
        return {id(p): name for name, p in self.objective.named_parameters()}

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._skeleton is None:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        weights = {f"weights.{name}": t for name, t in self.objective.state_dict().items()}
        save_shards(Path(output_dir) / SHARDS, {**weights, **self.fast_slow.named_tensors(self._names())})
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint) / SHARDS
        if folder.is_dir() != (self._skeleton is not None):
            wrote = "with" if folder.is_dir() else "without"
            raise ValueError(f"{resume_from_checkpoint} was written {wrote} FSDP: resume with the same launch")
        if self._skeleton is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        load_shards(folder, {f"weights.{name}": t for name, t in self.objective.state_dict().items()})

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self._skeleton is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        folder = Path(checkpoint) / SHARDS
        stored = {name for name in shard_names(folder) if not name.startswith("weights.")}
        self.fast_slow.load_named_tensors(stored, self._names(), lambda tensors: load_shards(folder, tensors))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))
