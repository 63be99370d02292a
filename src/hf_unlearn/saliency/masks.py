"""Weight masks, which select the weights that a forget step may move: compute them from Fishers, save and load them.

A mask is a dict of bool tensors keyed by parameter name of the trained network, True where the weight may move. Files
are safetensors with one bit for each weight and with metadata on how the mask was made.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..common.files import atomic
from ..common.identity import tensor_digest
from ..common.keys import content_key
from ..common.sharding import local, shard_of

Fisher = dict[str, Tensor]  # by parameter name
# A value below this share of the largest F_f is rounding error. An attention key's bias has a gradient of exactly 0
# in theory, but 1e-19 beside 1e-3 in practice. Without a floor such weights pass F_f > 0, and by chance
# F_f >= gamma F_r.
ROUNDING = 1e-12
SHAPES = "shapes"  # metadata entry of files whose tensors are packed, eight weights to a byte
DIGEST = "digest"  # metadata entry with a hash of the packed masks


@dataclass
class Masks:
    """Weight masks by parameter name, and metadata on how they were made."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def density(self) -> float:
        """The share of all weights that the forget step may move."""
        return sum(int(m.sum()) for m in self.tensors.values()) / sum(m.numel() for m in self.tensors.values())

    def table(self) -> list[tuple[str, int, float]]:
        """Return rows (parameter name, number of weights, salient share)."""
        return [(name, m.numel(), m.float().mean().item()) for name, m in self.tensors.items()]

    def aligned(self, network: nn.Module) -> list[Tensor]:
        """Return the masks in the order of the network's trainable parameters, as this process's shards.

        Raises:
            ValueError: names or shapes differ. Matching is strict, because a mask that silently applies to nothing
                would let every weight move.
        """
        parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
        missing, extra = parameters.keys() - self.tensors.keys(), self.tensors.keys() - parameters.keys()
        if missing or extra:
            raise ValueError(
                f"the masks do not belong to this model: {len(missing)} parameters without a mask "
                f"{sorted(missing)[:2]}, {len(extra)} masks without a parameter {sorted(extra)[:2]}"
            )
        for name, p in parameters.items():
            if p.shape != self.tensors[name].shape:
                raise ValueError(
                    f"mask {name} has shape {tuple(self.tensors[name].shape)}, the model's is {tuple(p.shape)}"
                )
        return [shard_of(self.tensors[name], p).to(local(p).device, torch.bool) for name, p in parameters.items()]

    def save(self, path: str | Path) -> None:
        """Write the masks (one bit for each weight) and the metadata as safetensors, atomically."""
        packed = {n: torch.from_numpy(np.packbits(m.bool().cpu().numpy())) for n, m in self.tensors.items()}
        shapes = json.dumps({n: list(m.shape) for n, m in self.tensors.items()})
        with atomic(path) as partial:
            save_file(packed, partial, metadata={**self.metadata, SHAPES: shapes, DIGEST: _digest(packed)})

    @classmethod
    def load(cls, path: str | Path) -> "Masks":
        """Read what `save` wrote, or the bool tensors of earlier versions. Raises ValueError for anything else."""
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}
                metadata = file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path} is not a readable mask file (safetensors): {error}") from error
        metadata.pop(DIGEST, None)
        if SHAPES in metadata:
            tensors = _unpacked(path, tensors, metadata.pop(SHAPES))
        wrong = [n for n, m in tensors.items() if m.dtype != torch.bool]
        if wrong or not tensors:
            raise ValueError(f"{path} holds no weight masks (bool tensors by parameter name)")
        return cls(tensors, metadata)


def _digest(packed: dict[str, Tensor]) -> str:
    return content_key({name: tensor_digest(bits) for name, bits in packed.items()})


def _unpacked(path: str | Path, packed: dict[str, Tensor], shapes: str) -> dict[str, Tensor]:
    """Unpack bits to bool tensors. Raises ValueError if the file does not match its `shapes`."""
    try:
        sizes = {name: torch.Size(shape) for name, shape in json.loads(shapes).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no weight masks: its shapes do not read ({error})") from error
    for name, bits in packed.items():
        if bits.dtype != torch.uint8 or name not in sizes or bits.numel() != -(-sizes[name].numel() // 8):
            raise ValueError(f"{path} holds no weight masks: {name} is not the bits of its shape")
    unpacked = {n: np.unpackbits(bits.numpy(), count=sizes[n].numel()) for n, bits in packed.items()}
    return {n: torch.from_numpy(flat).bool().view(sizes[n]) for n, flat in unpacked.items()}


def ratio_masks(
    forget: tuple[Fisher, dict[str, str]], retain: tuple[Fisher, dict[str, str]], gamma: float = 1.0, **more: str
) -> Masks:
    """Compute S = [F_f > 0 and F_f >= gamma F_r] (SFR-on), where anything below `ROUNDING` counts as 0. `more` is
    metadata."""
    if gamma < 0:
        raise ValueError(f"gamma must not be negative, got {gamma}")
    alive = _alive(forget[0])
    tensors = {n: alive[n] & (f >= gamma * retain[0][n]) for n, f in forget[0].items()}
    return Masks(tensors, _provenance(forget[1], retain[1], gamma=str(gamma), **more))


def density_masks(
    forget: tuple[Fisher, dict[str, str]], retain: tuple[Fisher, dict[str, str]], density: float
) -> Masks:
    """Select the `density` share of all weights with the largest F_f / F_r. Weights with F_f = 0 are not salient."""
    tiny, alive = torch.finfo(torch.float32).tiny, _alive(forget[0])
    scores = {n: torch.where(alive[n], f / retain[0][n].clamp(min=tiny), -1.0) for n, f in forget[0].items()}
    return Masks(top_masks(scores, density), _provenance(forget[1], retain[1], density=str(density)))


def top_masks(scores: Fisher, density: float) -> Fisher:
    """Select the `density` share of all weights together with the largest positive scores."""
    if not 0 < density <= 1:
        raise ValueError(f"mask density must lie in (0, 1], got {density}")
    flat = torch.cat([s.flatten() for s in scores.values()])
    keep = max(1, round(density * flat.numel()))
    threshold = flat.kthvalue(flat.numel() - keep + 1).values
    return {n: (s >= threshold) & (s > 0) for n, s in scores.items()}


def _alive(fisher: Fisher) -> Fisher:
    floor = ROUNDING * max(f.max().item() for f in fisher.values())
    return {n: f > floor for n, f in fisher.items()}


def _provenance(forget: dict[str, str], retain: dict[str, str], **rule: str) -> dict[str, str]:
    return {**rule, "forget": json.dumps(forget), "retain": json.dumps(retain)}


def load_masks(path: str | Path, network: nn.Module) -> Masks:
    """Load masks from a file and check that every name and shape matches the model."""
    masks = Masks.load(path)
    masks.aligned(network)
    return masks


def kept_masks(path: str | Path, network: nn.Module) -> Masks | None:
    """Load masks that a cache keeps, or None if there is no file, or it is torn or changed: compute them again."""
    try:
        with safe_open(path, framework="pt") as file:
            told = (file.metadata() or {}).get(DIGEST)
            if told != _digest({name: file.get_tensor(name) for name in file.keys()}):
                return None
        return load_masks(path, network)
    except (OSError, SafetensorError, ValueError):
        return None


def masks_from(value: Any, network: nn.Module) -> Masks | None:
    """Convert Masks, a dict of tensors or a path to Masks that match the network. None stays None."""
    if value is None:
        return None
    masks = value if isinstance(value, Masks) else Masks(dict(value)) if isinstance(value, dict) else Masks.load(value)
    masks.aligned(network)
    return masks
