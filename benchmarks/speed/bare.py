"""The work that an outer step cannot do without, by hand; and timing it in turns with the trainer."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from transformers import TrainerCallback

from hf_unlearn.saving.adapters import base_copy

from .setting import Span, build, spent, with_lora

WARM_UP = 2


class Work:
    """The work an outer step contains and nothing else.

    That is K + 1 forwards, backwards, clips and Adam steps and one forward without gradient for each target: the
    anchor's, and the original's for the retain batches. `forget=False` is plain fine-tuning: one step, no target.

    Args:
        network: what is trained, as far as its weights ask for gradients; a part of them may be an adapter.
        told: arguments of a forward under the label; anchor: the same under the anchor.
        autocast: precision of the forwards; None leaves theirs. target: of plain fine-tuning.
    """

    def __init__(
        self,
        network: nn.Module,
        told: dict[str, Any],
        anchor: dict[str, Any],
        retain_steps: int = 0,
        forget: bool = True,
        lora: bool = False,
        autocast: torch.dtype | None = None,
        target: Any = 0.0,
    ):
        self.network, self.told, self.anchor = network.train(), told, anchor
        self.autocast, self.target = autocast, target
        self.original = None
        if forget:
            self.original = base_copy(network) if lora else copy.deepcopy(network)
            self.original.eval()
            if not lora:
                self.original.requires_grad_(False)
        self.trained = [p for p in network.parameters() if p.requires_grad]
        adam = {"lr": 1e-4, "weight_decay": 0, "fused": True}
        self.optimizers = [torch.optim.AdamW(self.trained, **adam) for _ in range(1 + forget)]
        self.parts = [True] * forget + [False] * max(retain_steps, 1)

    def _output(self, network: nn.Module, told: dict[str, Any]) -> torch.Tensor:
        device = next(network.parameters()).device.type
        with torch.autocast(device, self.autocast, enabled=self.autocast is not None):
            return network(**told, return_dict=False)[0].float()

    def step(self) -> None:
        for forget in self.parts:
            target = self.target
            if self.original is not None:
                network, told = (self.network, self.anchor) if forget else (self.original, self.told)
                with torch.no_grad():
                    target = self._output(network, told)
            (self._output(self.network, self.told) - target).pow(2).mean().backward()
            clip_grad_norm_(self.trained, 1.0)
            self.optimizers[forget].step()
            self.optimizers[forget].zero_grad()


class Bare(Work):
    """That of the UNet of the bench."""

    def __init__(self, width: int, size: int, batch: int, retain_steps: int = 0, forget: bool = True, lora=False):
        pipeline = build(width, size)
        self.unet = with_lora(pipeline).network if lora else pipeline.unet
        told = {"sample": torch.randn(batch, 3, size, size), "timestep": torch.randint(0, 1000, (batch,))}
        labels, anchor = torch.full((batch,), 3), torch.full((batch,), 4)
        told = {**told, "class_labels": labels}
        others = {"class_labels": anchor}
        super().__init__(self.unet, told, told | others, retain_steps, forget, lora, target=told["sample"])


class Pairs(TrainerCallback):
    """Times every outer step, its log line and data too, in turns with one call of `other`.

    `first` is the first step, which the others do not count: what is compiled is compiled in it.
    """

    def __init__(self, other: Callable[[], Any], warm: Callable[[], Any] = lambda: None):
        self.other, self.warm, self.ours, self.theirs = other, warm, [], []

    def on_train_begin(self, args, state, control, **kwargs):
        self.mark = Span.now()

    def on_step_end(self, args, state, control, **kwargs):
        ours = Span.now() - self.mark
        theirs = spent(self.other)
        if state.global_step == 1:
            self.first = ours
        if state.global_step > WARM_UP:
            self.ours.append(ours)
            self.theirs.append(theirs)
        elif state.global_step == WARM_UP:
            self.warm()
        self.mark = Span.now()
