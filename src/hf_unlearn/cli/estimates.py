"""What a run will take, before it starts: memory from the shapes of the weights and of what a forward keeps for its
backward, both on torch's meta device, where nothing is allocated.

The counts are those of sfron's outer step, whose parts are those of the other methods too.
"""

import copy
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from ..common import kept
from ..common.checkpointing import enable_checkpointing
from ..common.precisions import bring_to, precision_name, take_any
from ..common.untrusted import loading, pipeline_index
from ..families.classifier.inputs import input_channels, input_sides
from ..families.load import DIT, TEXT_TO_IMAGE, pipeline_class
from ..families.text_to_image.load import kept_precision, stored_precisions
from ..families.text_to_image.pipelines import NETWORKS, denoiser_of_network
from ..methods import SFRon
from ..saliency.bases import base_bytes, lower_base
from ..saliency.ranks import lora_layers, lora_size, room_of
from ..saliency.squares import sample_chunk
from ..training.rounding import BLOCK

FP32 = 4
EIGHT_BIT = 1 + FP32 / BLOCK  # with a scale for each block
IN_MASK = 0.5  # share of the weights in a mask, before it is known
MODES = ("full", "masked", "lora")


# ---- the network, without its weights --------------------------------------------------------
def outline(name_or_path: str, revision: str | None = None) -> nn.Module:
    """The network that would be trained, on the meta device and, of a folder, in the precision that it is kept in
    where it is frozen: only the configuration and the headers of weights are read.

    Raises:
        ValueError, OSError: no model of a family that the package knows, or it cannot be read.
    """
    kind = pipeline_class(name_or_path, revision)
    with torch.device("meta"):
        if kind is None:
            from transformers import AutoConfig, AutoModelForImageClassification

            with loading(name_or_path):
                config = AutoConfig.from_pretrained(name_or_path, revision=revision, trust_remote_code=False)
                return AutoModelForImageClassification.from_config(config, trust_remote_code=False)
        import diffusers

        index = pipeline_index(name_or_path, weights=False, revision=revision)
        part = "transformer" if "transformer" in index else "unet"
        known = {"DiTTransformer2DModel", "Transformer2DModel", "UNet2DModel", *NETWORKS}
        class_name = index.get(part, [None, None])[1]
        if class_name not in known:
            raise ValueError(f"{name_or_path} is a {kind}: give a DDPM, DiT or text-to-image pipeline or a classifier")
        cls = diffusers.DiTTransformer2DModel if kind in DIT.classes else getattr(diffusers, class_name)
        with loading(name_or_path):
            network = cls.from_config(cls.load_config(name_or_path, subfolder=part, revision=revision))
        if kind in TEXT_TO_IMAGE.classes and Path(name_or_path).is_dir():  # others are trained in float32
            stored = stored_precisions(name_or_path, {part: index[part]})
            network.to(kept_precision(stored.get(part, torch.float32)))
        return network


def arguments(network: nn.Module, batch: int, device: Any, size: int | None = None) -> dict[str, Any]:
    """Arguments of one forward: zeros of the shapes that training gives, at `size` latents or pixels."""
    config: Any = network.config
    zeros = torch.zeros
    adapter = denoiser_of_network(network)
    if adapter is not None and adapter.part == "transformer":
        return adapter.sketched(network, batch, device, size)
    if not hasattr(config, "sample_size"):  # a transformers classifier
        sides = (size, size) if size else input_sides(config) or (224, 224)
        return {"pixel_values": zeros(batch, input_channels(config), *sides, device=device)}
    size = size or config.sample_size or 32
    sides = (size, size) if isinstance(size, int) else tuple(size)
    sample = zeros(batch, config.in_channels, *sides, device=device)
    given: dict[str, Any] = {"timestep": zeros(batch, dtype=torch.long, device=device)}
    if "cross_attention_dim" in config and "num_embeds_ada_norm" not in config:
        given["encoder_hidden_states"] = zeros(batch, 77, config.cross_attention_dim, device=device)
        if config.addition_embed_type == "text_time":
            pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            texts, ids = zeros(batch, pooled, device=device), zeros(batch, 6, device=device)
            given["added_cond_kwargs"] = {"text_embeds": texts, "time_ids": ids}
        return {"sample": sample, **given}
    labels = zeros(batch, dtype=torch.long, device=device)
    if "num_embeds_ada_norm" in config:
        return {"hidden_states": sample, **given, "class_labels": labels}
    return {"sample": sample, **given, "class_labels": labels if config.num_class_embeds else None}


def loss_of(network: nn.Module, given: dict[str, Any]) -> Tensor:
    return network(**given, return_dict=False)[0].float().pow(2).mean()


def pass_bytes(network: nn.Module, batch: int, size: int | None, saving: "Saving") -> int:
    """Bytes that a forward and backward of `batch` take beside weights and gradients, with what `saving` says. Without
    it they are what the forward keeps. All is counted on the meta device, where nothing is allocated."""
    network = copy.deepcopy(network)
    if saving.bf16_weights:
        bring_to(network, torch.bfloat16)
        take_any(network)
    if saving.base_precision not in (None, "fp32"):  # what is quantised computes in bf16
        lower_base(network, "fp16" if saving.base_precision == "fp16" else "bf16")
    if saving.gradient_checkpointing:
        enable_checkpointing(network)
    counted = kept.passing_bytes if saving.gradient_checkpointing else kept.kept_bytes
    if saving.mixed_precision == "no":
        return counted(lambda: loss_of(network, arguments(network, batch, "meta", size)), network)
    network, half = kept.stand_in(network), {"bf16": torch.bfloat16, "fp16": torch.float16}[saving.mixed_precision]
    with kept.FAKE, torch.autocast("cpu", half):
        return counted(lambda: loss_of(network, arguments(network, batch, "cpu", size)), network)


# ---- memory ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Saving:
    """What a run does to take less memory; named as the flags are. A base of no precision is kept in its own."""

    gradient_checkpointing: bool = False
    mixed_precision: str = "no"
    base_precision: str | None = None
    use_8bit_adam: bool = False
    masked_moments: bool = False
    bf16_weights: bool = False
    original_precision: str = "fp32"

    @classmethod
    def asked(cls, *flags: Any) -> "Saving":
        """What flags say: for each field the first of them that has it."""
        given = {f.name: next(getattr(p, f.name) for p in flags if hasattr(p, f.name)) for f in fields(cls)}
        return cls(**{**given, "mixed_precision": given["mixed_precision"] or "no"})

    def of(self, network: nn.Module, mode: str) -> "Saving":
        """What of it acts in a `mode`, with the precision that the frozen weights of a network are kept in."""
        if mode == "lora":
            base = self.base_precision or precision_name(network)
            return replace(
                self, base_precision=base, masked_moments=False, bf16_weights=False, original_precision="fp32"
            )
        return replace(self, base_precision="fp32", masked_moments=self.masked_moments and mode == "masked")

    @property
    def weight(self) -> int:
        """Bytes of a trained weight, and of its gradient."""
        return 2 if self.bf16_weights else FP32

    @property
    def moments(self) -> float:
        """Bytes of the two moments of a weight."""
        return 2 * EIGHT_BIT if self.use_8bit_adam else 2 * FP32

    @property
    def unpacked(self) -> int:
        """Bytes that the step of the largest tensor takes, a weight: moments, bf16 weights and gradients in float32,
        and what rounds them."""
        packed = self.use_8bit_adam or self.masked_moments
        return 20 * packed + 16 * self.bf16_weights


@dataclass
class Memory:
    """Bytes of one way to train. `lasting` is there all the time; of the other two the larger one counts."""

    trained: int
    lasting: dict[str, int]
    passes: dict[str, int]  # during forward and backward
    stepping: dict[str, int]  # during the optimizer step
    preparing: dict[str, int]  # before the first step, beside the weights: the two Fishers

    @property
    def peak(self) -> int:
        return sum(self.lasting.values()) + max(sum(self.passes.values()), sum(self.stepping.values()))

    @property
    def preparation(self) -> int:
        """Peak of the Fisher pass before the first step; 0 without one."""
        first = self.lasting["weights"] + self.lasting["copy of the original"]
        return first + sum(self.preparing.values()) if self.preparing else 0

    @property
    def most(self) -> int:
        """The larger peak of the two."""
        return max(self.peak, self.preparation)

    def too_large(self, free: int) -> list[str]:
        """The parts of a run that take more than `free` bytes, in words."""
        parts = {"the Fisher pass": self.preparation, "the training": self.peak}
        return [name for name, needed in parts.items() if needed > free]


def memory(
    network: nn.Module,
    mode: str,
    method: SFRon,
    batch: int,
    size: int | None = None,
    offload: bool = False,
    fishers: bool = True,
    saving: Saving = Saving(),  # noqa: B008
) -> Memory:
    """What `mode` takes at `batch` samples. Of "lora" the network must have its adapter (see `adapted`).

    Args:
        offload: the copy of the original and the slow weights are elsewhere.
        fishers: whether masks or ranks come from the two Fishers.
    """
    saving, network = saving.of(network, mode), copy.deepcopy(network).float()  # as it is made ready
    base, weight = saving.base_precision or "fp32", saving.weight
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    masked, separate = mode == "masked", method.forget_optim == "separate"
    lasting = {
        "weights": weight * trained + base_bytes(network, "bf16" if saving.bf16_weights else base),
        "retain optimizer": int(saving.moments * trained),
        "forget optimizer": int(saving.moments * trained * (IN_MASK if saving.masked_moments else 1)) * separate,
        "copy of the original": _original(network, saving) * (method.needs_original and mode != "lora"),
        "masks": trained * masked,
        "slow weights": FP32 * trained * (method.slow_rate < 1 or method.slow_form == "ema"),
    }
    if offload:
        lasting["copy of the original"] = lasting["slow weights"] = 0
    # Masked-out weights are kept aside where they could move, and where it is measured that they did not.
    stepping = {"gradients": weight * trained, "weights kept outside the mask": weight * trained * masked}
    if saving.unpacked:
        stepping["the largest tensor unpacked"] = saving.unpacked * max(p.numel() for p in network.parameters())
    passes = {"activations": pass_bytes(network, batch, size, saving)}
    preparing: dict[str, int] = {}
    if mode != "full" and fishers:
        samples = min(method.fisher_batch_size, method.fisher_samples or method.fisher_batch_size)
        plain = replace(saving, mixed_precision="no", base_precision="fp32")  # as the Fisher pass computes
        one = passes["activations"] // batch if saving == plain else pass_bytes(network, 1, size, plain)
        weights: dict[str, Tensor] = {
            name: p for name, p in network.named_parameters() if mode != "lora" or not p.requires_grad
        }
        chunk = sample_chunk(weights, samples, device_at_hand(), one)
        summed = {name: p.numel() for name, p in weights.items() if mode == "lora" or p.requires_grad}
        sums = 2 * FP32 * sum(summed.values())
        if mode == "lora":  # scores of every k-th weight, where all take more than the training
            room = room_of([p.numel() for p in weights.values()], trained, (batch - 1) * one)
            sums = min(sums, sums if room is None else room)
        # One sample after the other, a gradient is squared and freed as soon as it is whole.
        held = chunk * sum(summed.values()) if chunk > 1 else max(summed.values())
        together = chunk if method.fisher == "sample" else samples
        preparing = {"Fishers": sums, "gradients": weight * held, "activations of a chunk": one * together}
        if base != "fp32":  # which ranks are chosen before
            preparing["frozen weights in full"] = base_bytes(network, "fp32") - base_bytes(network, base)
    return Memory(trained, lasting, passes, stepping, preparing)


def _original(network: nn.Module, saving: Saving) -> int:
    """Bytes of the frozen copy of a network, which shares what is not trained."""
    if saving.original_precision == "fp32":
        return saving.weight * sum(p.numel() for p in network.parameters() if p.requires_grad)
    return base_bytes(copy.deepcopy(network).requires_grad_(False), saving.original_precision)


def adapted(network: nn.Module, rank: int, share: float = 1.0, select: str = "all") -> nn.Module:
    """The network with an untrained adapter of `rank` on all layers (or those of the cross attention, "xattn"), or on
    the first ones that make up `share` of it; it alone is trained."""
    layers, left, chosen = lora_layers(network, select), 0.0, []
    left = share * sum(lora_size(layer, rank) for layer in layers.values())
    for name, layer in layers.items():
        if lora_size(layer, rank) <= left:
            left -= lora_size(layer, rank)
            chosen.append(name)
    network.requires_grad_(False)
    on_meta = next(network.parameters()).is_meta
    return inject_adapter_in_model(LoraConfig(r=rank, target_modules=chosen), network, low_cpu_mem_usage=on_meta)


# ---- the device ------------------------------------------------------------------------------
def device_at_hand() -> str:
    """The type of device that a run would take: cuda, xpu or mps where torch has one, unless ACCELERATE_USE_CPU says
    otherwise; else cpu."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on"):
        return "cpu"
    kinds = {"cuda": torch.cuda, "xpu": torch.xpu, "mps": torch.backends.mps}
    return next((kind for kind, backend in kinds.items() if backend.is_available()), "cpu")


def free_bytes(device: Any) -> int:
    """Memory that a new program could take on this device, as torch says it; of the host, as psutil does."""
    kind = torch.device(device).type
    if kind in ("cuda", "xpu"):
        return getattr(torch, kind).mem_get_info()[0]
    host = psutil.virtual_memory().available
    if kind == "mps":  # memory that it shares with the host
        return min(host, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return host


def size_text(value: float) -> str:
    """Bytes in words: "1.50 GiB", "3.2 MiB", or "-" for none."""
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB" if value else "-"
