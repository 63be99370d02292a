"""What a training command is going to do, in a few lines before it draws or trains anything: what is trained, how many
images are generated, how long the stages took last time, and whether it fits the memory at hand.
"""

import copy
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..common.devices import launched_processes
from ..methods import Method, SFRon
from .estimates import Memory, Saving, adapted, device_at_hand, free_bytes, memory, outline, size_text
from .lean import choose
from .stages import Stages

SHARDED = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")


@dataclass(frozen=True)
class Room:
    """The device that a run takes and the memory that it finds there.

    Attributes:
        free: bytes that one process may take.
        unknown: why needs cannot be compared with it; "" if they can.
    """

    device: str
    free: int
    unknown: str = ""

    @classmethod
    def at_hand(cls) -> "Room":
        device, processes = device_at_hand(), launched_processes()
        sharded = any(os.environ.get(name, "").lower() in ("1", "true") for name in SHARDED)
        shared = processes if device == "cpu" else 1
        why = f"the weights are cut over {processes} processes" if sharded else ""
        return cls(device, free_bytes(device) // shared, why)

    def of(self, gigabytes: float) -> "Room":
        """The same device with so many GB; as it is for 0."""
        return replace(self, free=int(gigabytes * 2**30)) if gigabytes else self


def sketch(network: nn.Module) -> nn.Module:
    """A copy of a network on the meta device, where it takes no memory; the same weights are trained."""
    told: dict[int, Any] = {}
    for p in network.parameters():
        told[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
    for buffer in network.buffers():
        told[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(network, told).train()


def stand_in(method: Method) -> SFRon:
    """sfron with the parts of `method` that take memory; sfron itself as it is."""
    if isinstance(method, SFRon):
        return method
    return SFRon(forget_optim="shared", retain_loss="match" if method.needs_original else "data")


def masked(method: Method) -> bool:
    """Whether weights outside a mask are held."""
    return method.masks_every_step or (method.fast_steps and getattr(method, "use_mask", True) is not False)


def need(
    network: nn.Module,
    method: Method,
    lora: Any,
    training: Any,
    device: str,
    side: int | None = None,
    has_masks: bool = True,
) -> Memory | None:
    """What training a sketched network takes, with the adapter of the flags if there is one; None for an edit.

    Args:
        network: on the meta device; it gets the adapter.
        side: height and width of what the network sees; None for its own.
        has_masks: whether weights outside a mask are held.

    Raises:
        Exception: whatever a network raises that cannot be run on the meta device.
    """
    if not method.trains:
        return None
    mode = "masked" if has_masks else "full"
    fishers = isinstance(method, SFRon) and has_masks and not training.mask_path
    if lora.use_lora:
        share, mode = lora.rank_budget if lora.lora_select == "saliency" else 1.0, "lora"
        adapted(network, lora.rank, share, "xattn" if lora.lora_select == "xattn" else "all")
        fishers = lora.lora_select == "saliency"
    elsewhere = training.offload and device != "cpu"
    saving = Saving.asked(training, lora)
    return memory(network, mode, stand_in(method), training.train_batch_size, side, elsewhere, fishers, saving)


@dataclass(frozen=True)
class Outlook:
    """What is known of a run before it begins.

    Attributes:
        weights: how many weights the network has; None if it was not looked at.
        trained: how many of them, or of its adapter, are trained.
        needed: what training takes; None where it is not known or the method edits.
        why_not: why it is not known, in words.
    """

    room: Room
    weights: int | None = None
    trained: int | None = None
    needed: Memory | None = None
    why_not: str = ""


def outlook(network: nn.Module | str, run: Any, room: Room) -> Outlook:
    """Measure a sketched network, or keep the words that say why there is none."""
    if isinstance(network, str):
        return Outlook(room, why_not=network)
    weights, needed, why = _count(network), None, ""
    if run.objective is not None and not run.objective.adaptable:
        return Outlook(room, weights, _count(network, trained=True), why_not="not estimated for a text encoder")
    try:
        needed = need(network, run.method, run.lora, run.training, room.device, run.side, run.has_masks)
    except Exception as error:  # on the meta device a network of others may do what it likes
        why = f"not estimated, since this network does not run without weights ({type(error).__name__})"
    return Outlook(room, weights, _count(network, trained=True), needed, why)


def _count(network: nn.Module, trained: bool = False) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trained)


def lines(run: Any, found: Outlook, took: dict[str, float]) -> list[str]:
    """The plan, a line for each question.

    Args:
        took: seconds of the stages of an earlier run in this folder.
    """
    return [
        f"plan: {_trained(run, found)}",
        f"  strength: {_strength(run)}",
        *(f"  images: {line}" for line in run.draws),
        f"  time: {_time(run, took)}",
        f"  memory: {_memory(run, found)}",
        *([f"  attack: {_attack(run)}"] if run.training.attack != "none" else []),
    ]


def _trained(run: Any, found: Outlook) -> str:
    name = run.method.name
    if not run.method.trains:
        return f"{name} edits the weights once and takes no step"
    if found.trained is None or found.weights is None:
        return f"{name} trains {'an adapter' if run.lora.use_lora else 'the weights'} ({found.why_not})"
    if run.lora.use_lora:
        on = {"saliency": "chosen layers", "all": "all layers", "xattn": "the cross attention"}[run.lora.lora_select]
        least = "at most " if run.lora.lora_select == "saliency" else ""
        return f"{name} trains an adapter of {least}{found.trained:,} weights on {on}, beside {found.weights:,}"
    held = "; its forget steps move those in the mask" if run.has_masks else ""
    return f"{name} trains {found.trained:,} of {found.weights:,} weights ({found.trained / found.weights:.0%}){held}"


def _strength(run: Any) -> str:
    method, training = run.method, run.training
    if not method.trains:
        return "that of its formula"
    if _finds(run):
        return "found in each step, without a learning rate; the run ends once it has forgotten"
    rate = training.own_rate if training.learning_rate is None else training.learning_rate
    return f"learning rate {rate:g}" + ("" if training.learning_rate else f", the default for {method.name}")


def _time(run: Any, took: dict[str, float]) -> str:
    if took:
        each = ", ".join(f"{name} {_seconds(took[name])}" for name in run.all_stages if name in took)
        return f"the last run in {run.training.output_dir} took {each}"
    if not run.method.trains:
        return "no earlier run in this folder says"
    passes = run.others.get("num_train_epochs")
    steps = _steps(run) if passes is None else f"at most {passes:g} passes"
    method = run.method.for_data(("forget", "retain"))
    gradients = f"{method.batch_gradients:g} batches of {run.training.train_batch_size}"
    return f"no earlier run in this folder says; {steps}, each of {gradients}"


def _finds(run: Any) -> bool:
    return run.method.finds_strength and run.training.find_strength


def _steps(run: Any) -> str:
    usual, most = run.training.max_train_steps, run.training.most_steps
    if most > usual and _finds(run):
        return f"{usual} outer steps are planned, and at most {most} taken while it comes closer"
    return f"at most {usual} outer steps"


def _attack(run: Any) -> str:
    which = {"quick": "the short attacks", "full": "all attacks"}[run.training.attack]
    return f"{which}, on what was saved, beside the original and a control"


def _memory(run: Any, found: Outlook) -> str:
    room = found.room
    at_hand = f"{size_text(room.free)} are free ({room.device})"
    if found.why_not or found.needed is None:
        why = found.why_not or f"{run.method.name} takes little more than the model"
        return f"{why}; {at_hand}"
    needed, parts = found.needed, found.needed.too_large(room.free)
    peak = size_text(needed.most)
    if room.unknown:
        return f"one process alone would take about {peak}, but {room.unknown}; {at_hand}"
    fits = f"does not fit: {' and '.join(parts)}. Try --use_lora or a smaller --train_batch_size" if parts else "fits"
    return f"about {peak}, {at_hand}: {fits}"


def _seconds(value: float) -> str:
    return f"{value / 60:.1f} min" if value >= 90 else f"{value:.3g} s"


def planned(run: Any, network: nn.Module | str, room: Room, stages: Stages) -> list[str]:
    """Settle what is open, and return the lines that say so and what the run will do.

    Args:
        network: a sketch of what will be trained, or why there is none.
    """
    if run.training.low_memory is None:
        chosen = run.settle(network, room, stages)
    else:
        room = room.of(run.training.low_memory)
        mode = "masked" if run.has_masks else "full"
        chosen = choose(run, network, stand_in(run.method), mode, room.free)
    return [*([chosen] if chosen else []), *lines(run, outlook(network, run, room), stages.took)]


# ---- all weights, or an adapter on all layers -----------------------------------------------------
def adapter_instead(network: nn.Module, run: Any, room: Room) -> str:
    """Why an adapter on all layers is trained in place of all weights, with the figures; "" if the weights fit.

    Args:
        network: a sketch with all weights.
    """
    needed = outlook(network, run, room).needed
    if needed is None or room.unknown or not needed.too_large(room.free):
        return ""
    peak = size_text(needed.most)
    return (
        f"all weights need {peak}, {size_text(room.free)} are free: an adapter on all layers is trained; "
        "--train_method full --use_lora false insists on the weights"
    )


def outlined(name_or_path: str | None, revision: str | None) -> nn.Module | str:
    """The network in a folder of this machine from its configuration, or why it is not looked at."""
    if name_or_path is None:
        return "no model is named"
    if not Path(name_or_path).is_dir():
        return "known once the model is loaded"  # a dry run asks no Hub
    try:
        return outline(name_or_path, revision).train()
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())
