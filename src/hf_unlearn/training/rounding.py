"""Numbers kept in fewer bits: bfloat16 by stochastic rounding, and 8-bit codes with a scale for each block."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

BLOCK = 256  # numbers that share a scale
KEPT = 19  # bits of a number that its code is looked up by
LOW = 16  # bits that float32 has more than bfloat16


def stochastic_bf16(value: Tensor, generator: torch.Generator) -> Tensor:
    """Round float32 to bfloat16, up or down with the odds that keep the expectation (arXiv 2010.06192).

    Random 16 low bits are added to the bits of the number, and the low bits are cut off: x lies between two
    neighbours a < x < b, and is rounded to b with probability (x - a) / (b - a). What is exact stays as it is.
    """
    noise = torch.randint(0, 2**LOW, value.shape, dtype=torch.int32, device=value.device, generator=generator)
    bits = (value.contiguous().view(torch.int32) + noise) & -(2**LOW)
    return bits.view(torch.float32).to(torch.bfloat16)


def dynamic_code(signed: bool) -> Tensor:
    """The 256 numbers in [-1, 1], or [0, 1], of dynamic quantisation (8-bit optimizers, arXiv 2110.02861, 2.2).

    A number is 10^-e times a fraction in [0.1, 1]: after e leading zeros and a one, the bits that are left say which
    of so many equal parts. Without a sign there is a bit more, and no 0: what is divided by must not become 0.
    """
    exponents = 7 if signed else 8
    found = []
    for e in range(exponents):
        edges = torch.linspace(0.1, 1.0, 2 ** (exponents - 1 - e) + 1, dtype=torch.float64)
        found.append(10.0**-e * (edges[1:] + edges[:-1]) / 2)
    sizes = torch.cat(found)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    parts = [-sizes, zero, sizes, one] if signed else [sizes, one]
    return torch.cat(parts).sort().values.float()


class Code:
    """Numbers in 8 bits: a code, the number of one of `dynamic_code`, and a scale for each block of 256.

    The code of a number is looked up by its first 19 bits, which say it to a part in a thousand: a search among all
    takes five times as long on a CPU.
    """

    def __init__(self, signed: bool, device: Any):
        code = dynamic_code(signed)
        borders, found = (code[1:] + code[:-1]) / 2, []
        for first in torch.arange(2**KEPT, dtype=torch.int32).split(2**12):  # parts take little memory
            middles = ((first << (32 - KEPT)) + 2 ** (31 - KEPT)).view(torch.float32)
            found.append(torch.bucketize(middles.nan_to_num(0.0), borders, out_int32=True).to(torch.uint8))
        self.code, self.table = code.to(device), torch.cat(found).to(device)

    def quantised(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """(codes (n,) uint8, the largest size in each block) of n numbers in float32."""
        flat = value.flatten()
        rows = torch.nn.functional.pad(flat, [0, -len(flat) % BLOCK]).view(-1, BLOCK)
        scales = rows.abs().amax(1, keepdim=True)
        first = (rows / scales.clamp(min=torch.finfo(torch.float32).tiny)).view(torch.int32) >> (32 - KEPT)
        return self.table.index_select(0, (first & (2**KEPT - 1)).view(-1))[: len(flat)].clone(), scales[:, 0]

    def dequantised(self, codes: Tensor, scales: Tensor) -> Tensor:
        """(n,) float32: the opposite of `quantised`."""
        return self.code.index_select(0, codes.int()) * scales.repeat_interleave(BLOCK)[: len(codes)]


@cache
def code_of(signed: bool, device: Any) -> Code:
    """The code that all optimizers on a device share."""
    return Code(signed, device)
