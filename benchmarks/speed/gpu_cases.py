"""What the GPU run measures of one network: an outer step beside its work by hand, and the Fisher pass, with peaks."""

import gc
import statistics
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig
from torch import nn
from transformers import TrainerCallback

from hf_unlearn import SFRon, add_lora
from hf_unlearn.cli.estimates import arguments
from hf_unlearn.families import Objective
from hf_unlearn.saliency.fisher import fisher
from hf_unlearn.saliency.ranks import lora_layers

from .bare import Work
from .scale import Clock
from .setting import forget_peak, peak_megabytes, scratch, spent, trainer_for
from .sizes import SIZES, latents, network_of, objective_of

MODES = ("all weights", "cross attention", "LoRA")
RANK = 8
WARM_UP, STEPS = 2, 4
# Bytes a weight: fp32 weights and the original; of what is trained gradients and the states of two Adams.
HELD, TRAINED = 4, 20


@dataclass(frozen=True)
class Case:
    """One way to train one network.

    seconds: about what it takes on a large GPU, that of building the network too. work: whether the same work is done
    by hand too, to compare with. config: of UnlearnConfig.
    """

    size: str
    mode: str
    seconds: float
    work: bool = False
    plain_attention: bool = False
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        words = [self.size, self.mode, "bf16" if self.config.get("bf16") else "fp32"]
        words += ["checkpointing"] if self.config.get("activation_checkpointing") else []
        words += ["compiled"] if self.config.get("torch_compile") else []
        words += ["offload"] if self.config.get("offload") else []
        return ", ".join(words + (["attention without SDPA"] if self.plain_attention else []))


BF16: dict[str, Any] = {"bf16": True}
LEAN: dict[str, Any] = {**BF16, "activation_checkpointing": True}
# The most telling first: where the time ends, the last ones are left out.
FIRST = (
    Case("SD 1.5", "all weights", 20, True, config=BF16),
    Case("SD 1.5", "LoRA", 15, True, config=BF16),
    Case("SD 1.5", "cross attention", 15, True, config=BF16),
    Case("SD 1.5", "all weights", 25),
    Case("SD 1.5", "all weights", 20, config=LEAN),
    Case("DiT-XL/2", "all weights", 20, True, config=BF16),
    Case("DiT-XL/2", "LoRA", 15, True, config=BF16),
    Case("SDXL", "all weights", 35, True, config=LEAN),
    Case("SDXL", "LoRA", 30, True, config=BF16),
    Case("SD 3.5 medium", "all weights", 35, True, config=LEAN),
    Case("SD 3.5 medium", "LoRA", 30, True, config=BF16),
    Case("Flux", "LoRA", 50, config=LEAN),
    Case("SD 1.5", "LoRA", 90, config={**BF16, "torch_compile": True}),
)
LAST = (
    Case("SD 1.5", "all weights", 20, plain_attention=True, config=BF16),
    Case("SD 1.5", "all weights", 20, config={**BF16, "offload": True}),
    Case("SDXL", "cross attention", 30, config=BF16),
    Case("SD 3.5 medium", "cross attention", 30, config=BF16),
)
CASES = (*FIRST, *LAST)
FISHERS = (("SD 1.5", 20.0), ("SDXL", 40.0))


class Peak(TrainerCallback):
    """The peak of the outer steps alone, on a GPU that of torch's allocator."""

    def on_train_begin(self, args, state, control, **kwargs):
        reset(args.device)


def reset(device: Any) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        forget_peak()


def peak(device: Any) -> float:
    """Megabytes since `reset`."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_megabytes()


def emptied() -> None:
    """Give back what an earlier case held: nothing refers to it any more."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def needed_bytes(case: Case, tiny: bool) -> int:
    """About what a case takes without activations, of shapes alone."""
    network = network_of(case.size, "meta", tiny)
    whole = sum(p.numel() for p in network.parameters())
    trained = whole
    if case.mode == "LoRA":
        trained = sum(RANK * (m.weight.shape[0] + m.weight[0].numel()) for m in lora_layers(network).values())
    elif case.mode == "cross attention":
        objective_of(case.size, network, "xattn", tiny)
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    copies = 1 if case.mode == "LoRA" or case.config.get("offload") else 2
    return HELD * whole * copies + TRAINED * trained


def prepared(case: Case, device: Any, tiny: bool) -> tuple[Any, nn.Module]:
    """(objective, its network on the device), the adapter in it where the case has one."""
    network = network_of(case.size, device, tiny)
    if case.plain_attention:
        from diffusers.models.attention_processor import AttnProcessor

        network.set_attn_processor(AttnProcessor())
    objective: Any = objective_of(case.size, network, "xattn" if case.mode == "cross attention" else "full", tiny)
    if case.mode == "LoRA":
        add_lora(objective, LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(lora_layers(network, "all"))))
        network.to(device)
    return objective, network


def data_of(case: Case, objective: Objective, tiny: bool) -> tuple[Any, Any]:
    """(forget, retain): random latents of prompt or class 1, and of another one."""
    batch = SIZES[case.size].batch
    return tuple(latents(case.size, objective, 4 * batch, label, tiny) for label in (1, 2))  # type: ignore[return-value]


def measured(case: Case, device: Any, tiny: bool) -> dict[str, Any]:
    """Seconds of an outer step after the warm-up, its peak, and with `work` both of its work by hand."""
    batch = SIZES[case.size].batch
    method = SFRon(use_mask=False)
    objective, network = prepared(case, device, tiny)
    about = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "batch": batch,
    }
    clock = Clock()
    with scratch() as folder:
        quiet = {"guard_steps": 0, "verify_mask_steps": 0, "max_loss_ratio": 1e9, "use_cpu": device == "cpu"}
        data = data_of(case, objective, tiny)
        steps = WARM_UP + STEPS
        trainer = trainer_for(objective, method, batch, 0, folder, steps, data, **quiet, **case.config)
        trainer.add_callback(Peak())
        trainer.add_callback(clock)
        first = spent(trainer.train).clock
    found = {
        **about,
        "seconds": statistics.median(span.clock for span in clock.spans[WARM_UP - 1 :]),
        "megabytes": peak(device),
        "all_seconds": first,
    }
    del trainer, objective, network, data
    emptied()
    return {**found, **by_hand(case, device, tiny, method.retain_steps)} if case.work else found


def by_hand(case: Case, device: Any, tiny: bool, retain_steps: int) -> dict[str, Any]:
    """The work of the same outer step, alone on the device."""
    objective, network = prepared(case, device, tiny)
    if case.config.get("activation_checkpointing"):
        network.enable_gradient_checkpointing()
    told = arguments(network, SIZES[case.size].batch, device, 8 if tiny else None)
    autocast = torch.bfloat16 if case.config.get("bf16") else None
    work = Work(network, told, told, retain_steps, lora=case.mode == "LoRA", autocast=autocast)
    reset(device)
    spans = [spent(work.step) for _ in range(WARM_UP + STEPS)][WARM_UP:]
    found = {"work_seconds": statistics.median(span.clock for span in spans), "work_megabytes": peak(device)}
    del objective, work, network
    emptied()
    return found


def fisher_pass(size: str, device: Any, tiny: bool) -> dict[str, Any]:
    """Seconds and peak of the Fisher of 8 batches by batch gradients, over as many forwards and backwards."""
    case, batch = Case(size, "all weights", 0), SIZES[size].batch
    objective, network = prepared(case, device, tiny)
    objective.to(device).eval()
    data, _ = data_of(case, objective, tiny)
    told = arguments(network, batch, device, 8 if tiny else None)

    def plain() -> None:
        for _ in range(4):
            network(**told, return_dict=False)[0].pow(2).mean().backward()
            network.zero_grad()

    def ours() -> None:
        fisher(objective, data, True, estimator="batch", max_samples=4 * batch, batch_size=batch)

    found: dict[str, Any] = {"parameters": sum(p.numel() for p in network.parameters()), "batch": batch}
    for name, call in (("plain", plain), ("fisher", ours)):
        call()  # warms up
        reset(device)
        found |= {f"{name}_seconds": spent(call).clock, f"{name}_megabytes": peak(device)}
    return found
