"""How much a forward pass keeps for its backward pass."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


def kept_bytes(forward: Callable[[], Tensor], network: nn.Module) -> int:
    """Bytes that `forward` keeps for its backward, beside the weights of `network`, and the largest of them once more
    for the gradient in flight. Only sizes are read, so that it counts on the meta device too."""
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, Any] = {}  # the storages themselves: a freed one's address may come again

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = forward()
    sizes = [storage.nbytes() for storage in kept.values()]
    del loss
    return sum(sizes) + max(sizes, default=0)
