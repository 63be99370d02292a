"""What a run can do to fit a given memory: settings from the one that changes least to the leanest."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from accelerate.utils import broadcast_object_list
from torch import nn

from ..common.checkpointing import checkpointable
from ..common.precisions import precision_name
from ..families.text_to_image.pipelines import NETWORKS, trained_names
from ..methods import SFRon
from ..training.savings import running_statistics
from .estimates import Memory, Saving, adapted, memory, size_text
from .flags import LoraFlags

ALL_LAYERS_RANK = 8  # of an adapter in place of all weights: the rank that docs/emoji.md measures
OF_WEIGHTS = ("masked_moments", "use_8bit_adam", "bf16_weights")  # flags that save in the training of all weights
SHARE = 0.9  # of the memory that may be planned with; the allocator's gaps and kernels take some


@dataclass(frozen=True)
class Setting:
    """One way to save memory.

    Attributes:
        lora: train an adapter on all layers.
        one: one sample in a batch.
        saving: what else is done.
    """

    lora: bool = False
    one: bool = False
    saving: Saving = Saving()

    @property
    def flags(self) -> str:
        """The words of a command; "" where nothing is changed."""
        base = self.saving.base_precision
        words = [
            f"--use_lora --lora_select all --rank {ALL_LAYERS_RANK}" * self.lora,
            "--train_batch_size 1" * self.one,
            "--gradient_checkpointing" * self.saving.gradient_checkpointing,
            *(f"--{name}" * getattr(self.saving, name) for name in OF_WEIGHTS),
            f"--base_precision {base}" * (base is not None),
        ]
        return " ".join(filter(None, words))


def settings(network: nn.Module, masked: bool = False) -> Iterator[Setting]:
    """All settings for a network, the leanest last. NF4 is one where bitsandbytes is installed.

    Args:
        masked: whether the forget steps have an optimizer of their own, and a mask.
    """
    again = Saving(gradient_checkpointing=checkpointable(network))
    yield Setting()
    if masked:
        yield Setting(saving=Saving(masked_moments=True))
    if again.gradient_checkpointing:
        yield Setting(saving=replace(again, masked_moments=masked))
    eight = replace(again, masked_moments=masked, use_8bit_adam=True)
    yield Setting(saving=eight)
    if not running_statistics(network):
        yield Setting(saving=replace(eight, bf16_weights=True))
    yield Setting(lora=True)
    if again.gradient_checkpointing:
        yield Setting(lora=True, saving=again)
    yield Setting(lora=True, one=True, saving=again)
    half = [] if precision_name(network) in ("bf16", "fp16") else ["bf16"]  # else it is kept so anyway
    for precision in (*half, *(["nf4"] if find_spec("bitsandbytes") else [])):
        yield Setting(True, True, Saving(again.gradient_checkpointing, base_precision=precision))


def taken(network: nn.Module, setting: Setting, method: SFRon, mode: str, batch: int, side: int | None) -> Memory:
    """The memory of a run with this setting.

    Args:
        network: on the meta device, with all weights that would be trained without an adapter; it stays as it is.
        mode: "full" or "masked", of a run without an adapter.
    """
    network = copy.deepcopy(network)
    if setting.lora:
        network, mode = adapted(network, ALL_LAYERS_RANK), "lora"
    options: dict[str, Any] = {"fishers": not setting.lora, "saving": setting.saving}
    return memory(network, mode, method, 1 if setting.one else batch, side, **options)


def trained_by(network: nn.Module, train_method: str | None) -> nn.Module:
    """The outlined network of which `train_method` trains its weights; None trains all.

    Raises:
        ValueError: only text-to-image networks have such a method, or it trains none of its weights.
    """
    if train_method is None:
        return network
    if type(network).__name__ not in NETWORKS:
        raise ValueError("--train_method is for text-to-image pipelines: leave it out")
    chosen = trained_names(network, train_method)
    if not chosen:
        raise ValueError(f"{type(network).__name__} has no weights that --train_method {train_method} names")
    for name, p in network.named_parameters():
        p.requires_grad_(name in chosen)
    return network


def first_fit(
    network: nn.Module, method: SFRon, mode: str, batch: int, side: int | None, free: int
) -> tuple[Setting, Memory] | None:
    """The setting that changes least and fits `free` bytes with its training and Fisher pass; None if none does."""
    for setting in settings(network, mode == "masked" and method.forget_optim == "separate"):
        needed = taken(network, setting, method, mode, batch, side)
        if not needed.too_large(int(SHARE * free)):
            return setting, needed
    return None


def choose(run: Any, network: nn.Module | str, method: SFRon, mode: str, free: int) -> str:
    """Change the flags of a run so that it fits `free` bytes, and return the line that says how.

    Raises:
        ValueError: a flag that is chosen here is given, the method takes no adapter, or nothing fits.
    """
    training = run.training
    given = {"use_lora": run.lora.use_lora, "gradient_checkpointing": training.gradient_checkpointing}
    given |= {name: getattr(training, name) for name in OF_WEIGHTS}
    named = next((name for name, value in given.items() if value), None)
    if named is not None:
        raise ValueError(f"--low_memory chooses --{named} itself: leave one of them out")
    if isinstance(network, str):
        return f"low memory: {network}"
    if not run.method.trains:
        return f"low memory: {run.method.name} edits the weights, which takes little more than the model"
    found = first_fit(network, method, mode, training.train_batch_size, run.side, free)
    state = getattr(run, "state", None)
    if state is not None and state.num_processes > 1:
        [found] = broadcast_object_list([found])  # the processes find different memory
    if found is None:
        raise ValueError(f"nothing that --low_memory knows fits {size_text(free)}: train on a larger device")
    setting, needed = found
    if setting.lora:
        if run.method.masks_every_step or training.mask_path:
            what = "--mask_path is for weights" if training.mask_path else f"{run.method.name} takes no adapter"
            raise ValueError(f"{what}, and all weights do not fit {size_text(free)}: leave it out")
        take_adapter(run, setting.saving.base_precision)
    if setting.one:
        training.train_batch_size = 1
    training.gradient_checkpointing = setting.saving.gradient_checkpointing
    for name in OF_WEIGHTS:
        setattr(training, name, getattr(setting.saving, name))
    peak = size_text(needed.most)
    return f"low memory: {setting.flags or 'all weights fit as they are'} ({peak} of {size_text(free)})"


def take_adapter(run: Any, base_precision: Any = None) -> None:
    """Have a run train an adapter on all layers in place of all weights."""
    run.lora = LoraFlags(use_lora=True, lora_select="all", rank=ALL_LAYERS_RANK, base_precision=base_precision)
    run.parts = [run.lora if isinstance(part, LoraFlags) else part for part in run.parts]
