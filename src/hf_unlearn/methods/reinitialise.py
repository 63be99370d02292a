"""SNIP re-initialisation: the late weights that matter most for the forget data begin anew."""

from math import ceil

import torch
from torch import Tensor, nn

from ..data.protocols import SizedDataset
from ..families import Objective
from ..saliency.fisher import forget_gradient
from ..saliency.masks import top_masks

BATCH = 32  # forget samples whose gradient chooses
LAYERS = (nn.Linear, nn.modules.conv._ConvNd)  # normalisation layers and tables of embeddings stay


def late_weights(network: nn.Module, names: str, last: float) -> dict[str, nn.Parameter]:
    """The trained weights and biases, by name, of the linear and convolution layers that count as late.

    Args:
        names: beginnings of the layers' names, with commas between them; "" takes what `last` says.
        last: share of these layers, counted from the last one.

    Raises:
        ValueError: there is none.
    """
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, LAYERS)]
    first = [name.strip() for name in names.split(",") if name.strip()]
    if first:
        late = [pair for pair in layers if any(f"{pair[0]}.".startswith(f"{name}.") for name in first)]
    else:
        late = layers[len(layers) - ceil(last * len(layers)) :]
    found = {f"{at}.{n}": p for at, layer in late for n, p in layer.named_parameters(recurse=False)}
    found = {name: p for name, p in found.items() if p.requires_grad}
    if not found:
        text = ", ".join(name for name, _ in layers[-3:])
        raise ValueError(f"reinit_layers={names!r} names no trained layer: the last ones are {text}")
    return found


def start_anew(
    objective: Objective, forget: SizedDataset, weights: dict[str, nn.Parameter], share: float, seed: int
) -> None:
    """Draw the `share` of `weights` with the largest |g w| anew, in place; g = mean ∂l/∂w over one forget batch.

    Weights are Kaiming uniform with a = √5, biases 0.
    """
    gradient, _ = forget_gradient(objective, forget, max_samples=BATCH, batch_size=BATCH, seed=seed)
    chosen = top_masks({n: gradient[n] * p.detach().abs() for n, p in weights.items()}, share)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in weights.items():
            p.copy_(torch.where(chosen[name], _anew(p, generator), p))


def _anew(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """Fresh values in the shape of a weight, or of a bias. They do not depend on the device."""
    fresh = torch.zeros(parameter.shape)
    if parameter.dim() > 1:
        nn.init.kaiming_uniform_(fresh, a=5**0.5, generator=generator)
    return fresh.to(parameter)
