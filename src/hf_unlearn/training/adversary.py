"""An adversary among the conditions: shifts of the labels' embeddings under which what is forgotten is still drawn.

Forgetting under a prompt alone leaves what other embeddings reach: a few learnt vectors before the prompt may bring
all of it back. So every second forget sample is met under c + δ too, with a δ that is learnt beside the run:
adversarial training over embeddings, as AdvUnlearn (Zhang et al. 2024, arXiv 2405.15234) and STEREO (Srivatsan et al.
2024, arXiv 2408.16807), in the form with one step a batch that goes on from the last one (Wong et al. 2020, arXiv
2001.03994):

    δ <- δ - ρ s sign(∂/∂δ Σ_i l(x_i, ε_i, t_i, c_i + δ)),   l the data's own loss, s the spread of the embeddings

`POOL` shifts take turns, and each begins anew after `LIFE` of its turns: an old one is far from any embedding of a
text. Chosen on the elephant, mushroom, rocket, doughnut and pineapple and the style noto of the emoji model
(docs/robustness.md).
"""

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.losses import global_sum
from ..families.denoising import Denoising
from ..methods.parts import Hardest, Samples
from .config import UnlearnConfig
from .draws import Draws

POOL = 2
LIFE = 12  # turns
RATE = 0.25  # ρ
FIRST = 500_000  # of the draws of new shifts
START = 0.5  # standard deviation of a new shift, in spreads


class Adversary:
    """The shifts of a run; a part of the trainer, whose state goes into checkpoints.

    Args:
        objective: its conditions are shifted.
        args: they give this process's place among the others.
        draws: they make what is random.
    """

    def __init__(self, objective: Denoising, args: UnlearnConfig, draws: Draws):
        self.objective, self.args, self.draws = objective, args, draws
        self.turns = 0
        self.shifts: dict[int, list[Tensor]] = {}
        self._spreads: list[float] | None = None

    def restart(self) -> None:
        """Begin anew, as another call of `train` does."""
        self.turns, self.shifts, self._spreads = 0, {}, None

    def learn(self, step: Any, batch: Samples) -> Hardest:
        """Take one step of the adversary on every second sample of the global forget batch, or on its only one.

        Returns:
            (rows: which samples are met under the shifts; (rows,) bool, False where that is no sample of this process;
            the shift of each condition).
        """
        size = len(batch["labels"])
        single = size * self.args.world_size == 1
        rows = slice((self.args.process_index * size + 1 + single) % 2, None, 2)  # in the order of the global batch
        mine = len(batch["labels"][rows]) > 0  # of one sample a process, those with an even number have none
        rows = rows if mine else slice(None)
        part = {name: value[rows] for name, value in batch.items()}
        counts = torch.full_like(part["labels"], mine, dtype=torch.bool)
        shifts = [shift.requires_grad_() for shift in self._current()]
        loss = (step.losses(part, under=shifts) * counts).sum()
        gradients = [global_sum(g) for g in torch.autograd.grad(loss, shifts)]
        moved = [
            (shift - RATE * spread * g.sign()).detach()
            for shift, spread, g in zip(shifts, self.spreads, gradients, strict=True)
        ]
        self.shifts[self.turns % POOL] = moved
        self.turns += 1
        return rows, counts, moved

    @property
    def spreads(self) -> list[float]:
        """The standard deviation of each condition's embeddings before the first step: a class's are trained too."""
        if self._spreads is None:
            self._spreads = [rows.detach().float().std().item() for rows in self.objective.conditions]
        return self._spreads

    def _current(self) -> list[Tensor]:
        """The shifts whose turn it is, new ones at the beginning of their life."""
        kept = self.shifts.get(self.turns % POOL)
        if kept is not None and self.turns // POOL % LIFE:
            return [shift.detach() for shift in kept]
        generator = self.draws.generator("profile", FIRST + self.turns)
        pairs = zip(self.objective.conditions, self.spreads, strict=True)
        return [START * s * torch.randn(rows.shape[1:], generator=generator).to(rows.device) for rows, s in pairs]

    def state_dict(self) -> dict[str, Any]:
        shifts = {str(turn): [_packed(shift) for shift in every] for turn, every in self.shifts.items()}
        return {"adversary": {"turns": self.turns, "shifts": shifts, "spreads": self._spreads}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        kept = state["adversary"]
        self.turns, self._spreads = kept["turns"], kept["spreads"]
        shapes = [rows.shape[1:] for rows in self.objective.conditions]
        device = self.objective.conditions[0].device
        self.shifts = {
            int(turn): [_unpacked(text, shape).to(device) for text, shape in zip(every, shapes, strict=True)]
            for turn, every in kept["shifts"].items()
        }


def adversary_of(objective: Any, method: Any, args: UnlearnConfig, draws: Draws) -> Adversary | None:
    """The adversary of a run whose method has one."""
    return Adversary(objective, args, draws) if getattr(method, "adversary", False) else None


def _packed(shift: Tensor) -> str:
    return base64.b64encode(shift.detach().float().cpu().numpy().tobytes()).decode()


def _unpacked(text: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype=np.float32).copy()).view(shape)
