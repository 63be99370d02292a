"""Put a vector in the place of a label's embedding, so that it can be learnt while the network stays as it is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def shifted_labels(tables: Sequence[nn.Embedding], shifts: Sequence[Tensor]) -> Iterator[None]:
    """Have every forward inside add to each embedding of a label its table's shift, (D,) or (B, D)."""

    def hook(shift: Tensor):
        return lambda module, inputs, output: output + shift.to(output.dtype)

    handles = [table.register_forward_hook(hook(shift)) for table, shift in zip(tables, shifts, strict=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replaced_label(tables: Sequence[nn.Embedding], label: int, vectors: Sequence[Tensor]) -> Iterator[None]:
    """Have every forward inside embed `label` as `vectors`. Gradients reach them; the tables keep their weights.

    Args:
        tables: the tables of labels of a network (`Denoising.label_tables`).
        label: a row of them.
        vectors: (D,) for each table.

    Raises:
        ValueError: the network embeds no labels, another number of vectors, or one of another length.
    """
    if not tables:
        raise ValueError("the model embeds no labels, so there is none to replace: give a class-conditional model")
    shapes = [tuple(vector.shape) for vector in vectors]
    wanted = [(table.embedding_dim,) for table in tables]
    if shapes != wanted:
        raise ValueError(f"vectors of shapes {shapes[:3]} for tables of {wanted[:3]}: give one for each table")

    def hook(vector: Tensor):
        def replace(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return torch.where((inputs[0] == label)[..., None], vector.to(output.dtype), output)

        return replace

    handles = [table.register_forward_hook(hook(vector)) for table, vector in zip(tables, vectors)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
