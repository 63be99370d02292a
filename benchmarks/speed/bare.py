"""The work that an outer step cannot do without, by hand; and timing it in turns with the trainer."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_
from transformers import TrainerCallback

from hf_unlearn.saving.adapters import base_copy

from .setting import Span, build, spent, with_lora

WARM_UP = 2


class Bare:
    """The work an outer step contains and nothing else.

    That is K + 1 forwards, backwards, clips and Adam steps and one forward without gradient for each target: the
    anchor's, and the original's for the retain batches. `forget=False` is plain fine-tuning: one step, no target.
    """

    def __init__(self, width: int, size: int, batch: int, retain_steps: int = 0, forget: bool = True, lora=False):
        pipeline = build(width, size)
        self.unet = (with_lora(pipeline).network if lora else pipeline.unet).train()
        self.original = None
        if forget:
            self.original = base_copy(self.unet) if lora else copy.deepcopy(self.unet)
            self.original.eval()
            if not lora:
                self.original.requires_grad_(False)
        self.trained = [p for p in self.unet.parameters() if p.requires_grad]
        adam = {"lr": 1e-4, "weight_decay": 0, "fused": True}
        self.optimizers = [torch.optim.AdamW(self.trained, **adam) for _ in range(1 + forget)]
        self.parts = [True] * forget + [False] * max(retain_steps, 1)
        self.x, self.t = torch.randn(batch, 3, size, size), torch.randint(0, 1000, (batch,))
        self.labels, self.anchor = torch.full((batch,), 3), torch.full((batch,), 4)

    def step(self) -> None:
        for forget in self.parts:
            target = self.x
            if self.original is not None:
                network, labels = (self.unet, self.anchor) if forget else (self.original, self.labels)
                with torch.no_grad():
                    target = network(self.x, self.t, class_labels=labels).sample
            (self.unet(self.x, self.t, class_labels=self.labels).sample - target).pow(2).mean().backward()
            clip_grad_norm_(self.trained, 1.0)
            self.optimizers[forget].step()
            self.optimizers[forget].zero_grad()


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
