"""AdamW that keeps less between two steps: moments of masked weights alone, in 8 bits, and bfloat16 weights."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.adamw import adamw

from .rounding import Code, code_of, stochastic_bf16

MOMENTS = ("exp_avg", "exp_avg_sq")
SMALLEST = 4096  # tensors of fewer weights keep their moments in float32, as bitsandbytes does
SCALES = "_scales"  # after the name of a moment that is kept in 8 bits


class CompactAdamW(AdamW):
    """AdamW (arXiv 1711.05101) that takes one tensor after the other: its moments are unpacked to float32, torch's own
    kernel takes the step, and they are packed again. So nothing but what is packed lasts, beside one tensor.

    Moments where the mask is set: gradients outside must be 0 and there is no weight decay, so that the dense moments
    there are exactly 0; the weights are those of AdamW, bit for bit. Moments in 8 bits: `rounding.Code`.
    bfloat16 weights: the step is taken in float32 and rounded by `rounding.stochastic_bf16`, so that steps below half
    the distance of two neighbours add up. What is random follows from the seed and the number of the step alone.

    Args:
        params, adam: as AdamW takes them.
        eight_bit: keep the moments in 8 bits.
        masked: keep the moments of the weights in the masks alone, which `bind` is given before the first step.
        seed: of the rounding.
    """

    def __init__(self, params: Any, eight_bit: bool = False, masked: bool = False, seed: int = 0, **adam: Any):
        super().__init__(params, **adam)
        self.eight_bit, self.masked, self.seed = eight_bit, masked, seed
        self.masks: dict[int, Tensor] = {}  # of a parameter's id

    def bind(self, masks: list[Tensor | None]) -> None:
        """Take the masks, one for each parameter in their order; None lets all of one move."""
        if self.masked:
            self.masks = {id(p): mask for p, mask in zip(self._every, masks, strict=True) if mask is not None}

    @property
    def _every(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    # ---- a step ----------------------------------------------------------------------------------
    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        generator: torch.Generator | None = None
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p] or self._begun(p, group)
                if p.dtype == torch.bfloat16 and generator is None:
                    generator = self.generator(p.device, int(state["step"].item()))
                self._step_one(p, group, generator)
        return loss

    def _step_one(self, p: Tensor, group: dict[str, Any], random: torch.Generator | None) -> None:
        assert p.grad is not None
        m, v = (self.unpacked(p, name) for name in MOMENTS)
        weights, gradient = (t if t.dtype == torch.float32 else t.float() for t in (p.detach(), p.grad))
        beta1, beta2 = group["betas"]
        names = ("lr", "weight_decay", "eps", "amsgrad", "maximize", "foreach", "capturable", "fused")
        options: dict[str, Any] = {name: group[name] for name in names}
        adamw([weights], [gradient], [m], [v], [], [self.state[p]["step"]], beta1=beta1, beta2=beta2, **options)
        self._pack(p, "exp_avg", m)
        self._pack(p, "exp_avg_sq", v)
        if random is not None and p.dtype == torch.bfloat16:
            p.copy_(stochastic_bf16(weights, random))

    def _begun(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        if self.masked and not self.masks:
            raise ValueError("masked_moments, but there is no mask: leave it out")
        on_device = group["fused"] or group["capturable"]
        self.state[p] = {"step": torch.zeros((), device=p.device if on_device else "cpu")}
        for name in MOMENTS:
            self._pack(p, name, torch.zeros_like(p, dtype=torch.float32))
        return self.state[p]

    def generator(self, device: torch.device, step: int) -> torch.Generator:
        """What step number `step`, from 0, rounds with."""
        return torch.Generator(device).manual_seed((self.seed * 1_000_003 + step) % 2**63)

    # ---- what lasts ------------------------------------------------------------------------------
    def _code(self, name: str, device: Any) -> Code:
        return code_of(name == "exp_avg", device)  # the second one is of squares

    def _pack(self, p: Tensor, name: str, value: Tensor) -> None:
        """Keep a moment, given in float32 in the shape of its weights."""
        state, mask = self.state[p], self.masks.get(id(p))
        if mask is not None:
            value = value[mask]
        if self.eight_bit and value.numel() >= SMALLEST:
            state[name], state[name + SCALES] = self._code(name, p.device).quantised(value)
        else:
            state[name] = value

    def unpacked(self, p: Tensor, name: str) -> Tensor:
        """A moment in float32 in the shape of its weights; what lasts unpacked is that itself."""
        state, mask = self.state[p], self.masks.get(id(p))
        value: Tensor = state[name]
        if name + SCALES in state:
            value = self._code(name, p.device).dequantised(value, state[name + SCALES])
            if mask is None:
                return torch.empty_like(p, dtype=torch.float32).copy_(value.view(p.shape))
        if mask is None:
            return value
        return torch.zeros_like(p, dtype=torch.float32).masked_scatter_(mask, value)

    # ---- checkpoints -----------------------------------------------------------------------------
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, which would cast the states to the precision of the weights.

        Raises:
            ValueError: the states are not kept as these.
        """
        super().load_state_dict(state_dict)
        for p, kept in self._kept(state_dict):
            given = {name: v if name == "step" else v.to(p.device, copy=True) for name, v in kept.items()}
            self.state[p] = {**given, "step": self.state[p]["step"]}
            mask = self.masks.get(id(p))
            count = p.numel() if mask is None else int(mask.sum())
            eight = self.eight_bit and count >= SMALLEST
            if given["exp_avg"].numel() != count or eight != ("exp_avg" + SCALES in given):
                raise ValueError(
                    "the checkpoint keeps the optimizer's moments otherwise: resume with the same masked_moments and "
                    "use_8bit_adam"
                )

    def _kept(self, state_dict: dict[str, Any]) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        every = self._every
        for number, kept in state_dict["state"].items():
            yield every[number], kept


def moved(weights: Tensor, direction: Tensor, by: float, random: torch.Generator | None) -> None:
    """Move weights by `by` times a direction, in place; bfloat16 ones are rounded stochastically, where `random` is
    given."""
    if random is None or weights.dtype != torch.bfloat16:
        weights.add_(direction, alpha=by)
    else:
        weights.copy_(stochastic_bf16(weights.float().add_(direction.float(), alpha=by), random))


def moment(optimizer: Any, p: Tensor, name: str) -> Tensor:
    """A moment of any Adam in the shape of its weights."""
    return optimizer.unpacked(p, name) if isinstance(optimizer, CompactAdamW) else optimizer.state[p][name]
