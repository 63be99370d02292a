"""How long an outer step of sfron takes, from a few real passes of a network with random weights."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..methods import SFRon
from .estimates import arguments, loss_of

CHUNKS = (16, 4, 1)  # batches to time at, if the whole one takes too long or does not fit


@dataclass
class Times:
    """Seconds of one forward, one forward with backward, and one optimizer step, at `batch` samples."""

    batch: int
    forward: float
    both: float
    step: float

    def outer_step(self, method: SFRon, batch: int) -> float:
        """Of sfron: the forget step and K retain steps, each with a forward for its target if it matches one."""
        passes = 1 + method.retain_steps
        targets = 1 + method.retain_steps * (method.retain_loss == "match")
        return (passes * self.both + targets * self.forward) * batch / self.batch + passes * self.step


def measure(network: nn.Module, batch: int, device: Any, size: int | None = None, repeats: int = 3) -> Times:
    """Times of a real network, the fastest of `repeats` after one to warm up."""
    network.train()
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)
    given = arguments(network, batch, device, size)

    def forward() -> None:
        with torch.no_grad():
            loss_of(network, given)

    def both() -> None:
        loss_of(network, given).backward()

    seconds = []
    for work in (forward, both, optimizer.step):
        times = []
        for _ in range(repeats + 1):
            _wait(device)
            start = time.perf_counter()
            work()
            _wait(device)
            times.append(time.perf_counter() - start)
        seconds.append(min(times[1:]))
    return Times(batch, *seconds)


def _wait(device: Any) -> None:
    kind = torch.device(device).type
    if kind != "cpu":
        getattr(torch, kind).synchronize()


def filled(network: nn.Module, device: Any) -> nn.Module:
    """The meta network with small random weights on `device`: for time, values do not matter."""
    real = network.to_empty(device=device)
    with torch.no_grad():
        for tensor in (*real.parameters(), *real.buffers()):
            tensor.zero_()
        for p in real.parameters():
            p.uniform_(-0.02, 0.02)
    return real
