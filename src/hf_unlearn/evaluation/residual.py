"""Residual knowledge: whether slightly changed forget samples are recognised more often than by a retrained model."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from ..data.pairs import collate
from ..data.protocols import SizedDataset
from .classification import evaluating
from .metric import Metric, share_interval, version_of

Norm = Literal["linf", "l2"]
RESAMPLES = 1000


def in_ball(shape: tuple[int, ...], radius: float, norm: Norm, generator: torch.Generator) -> Tensor:
    """Draw displacements (B, C, H, W) uniformly from a ball around 0.

    Args:
        shape: (B, C, H, W).
        radius: of each pixel ("linf"), or of the Euclidean length over all pixels of an image ("l2"), in the units of
            the model's input.

    Raises:
        ValueError: the radius is not above 0, or the norm is unknown.
    """
    if radius <= 0:
        raise ValueError(f"tau must be above 0, got {radius}")
    if norm == "linf":
        return radius * (2 * torch.rand(shape, generator=generator) - 1)
    if norm != "l2":
        raise ValueError(f"norm {norm!r} is not one of linf, l2")
    directions = torch.randn(shape, generator=generator)
    lengths = directions.flatten(1).norm(dim=1)
    # The volume within r grows as r^d, so the radius of a uniform point is a uniform number to the power 1 / d.
    radii = radius * torch.rand(len(directions), generator=generator) ** (1 / math.prod(shape[1:]))
    return directions * (radii / lengths).view(-1, *[1] * (len(shape) - 1))


def pixel_range(processor: Any) -> tuple[Tensor, Tensor]:
    """Return (low, high), each (C, 1, 1) or (1, 1, 1): what black and white become by an image processor.

    Without one images are in [-1, 1].
    """
    if processor is None:
        return torch.full((1, 1, 1), -1.0), torch.full((1, 1, 1), 1.0)
    mean, std = (torch.tensor(getattr(processor, f"image_{name}")).view(-1, 1, 1) for name in ("mean", "std"))
    if not getattr(processor, "do_normalize", True):
        mean, std = torch.zeros_like(mean), torch.ones_like(std)
    white = 1.0 if getattr(processor, "do_rescale", True) else 255.0
    return -mean / std, (white - mean) / std


@torch.no_grad()
def recognised_nearby(
    models: list[Any],
    data: SizedDataset,
    tau: float,
    valid: tuple[Tensor, Tensor],
    draws: int = 100,
    norm: Norm = "linf",
    seed: int = 0,
    batch_size: int = 512,
) -> Tensor:
    """Return Pr[m(x') = y] (models, N): the share of `draws` images near each sample that each model recognises.

    x' = clip(x + δ) with δ uniform in the ball of radius `tau`. All models see the same x', which depend on the seed
    and the sample's position alone.

    Args:
        models: transformers image classifiers.
        data: its items are dicts with "pixel_values" (C, H, W) and "labels".
        tau: radius in the units of the pixels that the model takes; 8/255 of images in [0, 1] is 0.063 in [-1, 1].
        valid: (low, high) that broadcast to (C, H, W), see `pixel_range`.

    Raises:
        ValueError: there are no samples or no draws, or what `in_ball` raises.
    """
    if len(data) == 0 or draws < 1:
        raise ValueError(f"{len(data)} samples and {draws} draws: give at least one of each")
    generator = torch.Generator().manual_seed(seed)
    found = torch.zeros(len(models), len(data), dtype=torch.float64)
    for position in range(len(data)):
        item = collate([data[position]])
        pixels, label = item["pixel_values"], int(item["labels"])
        moved = pixels + in_ball((draws, *pixels.shape[1:]), tau, norm, generator)
        moved = torch.minimum(torch.maximum(moved, valid[0]), valid[1])
        for number, model in enumerate(models):
            with evaluating(model):
                for part in moved.split(batch_size):
                    logits = model(pixel_values=part.to(model.device, model.dtype)).logits
                    found[number, position] += (logits.argmax(1) == label).sum().item()
    return found / draws


def residual_knowledge(
    model: Any,
    retrained: Any,
    data: SizedDataset,
    tau: float,
    valid: tuple[Tensor, Tensor],
    draws: int = 100,
    norm: Norm = "linf",
    seed: int = 0,
) -> Metric:
    """Return r_τ = Pr[m(x') = y] / Pr[a(x') = y] over the forget samples, above 1 where knowledge is left.

    m is the model, a the retrained one, x' uniform in the ball of radius τ around x, clipped to valid pixels (Hsu et
    al., NeurIPS 2025, arXiv 2601.22359). Both probabilities are means over all samples and draws, so that samples
    that the retrained model never recognises count too.

    Args:
        model, retrained: transformers image classifiers.
        data: the forget samples.
        others: as in `recognised_nearby`.

    Returns:
        The ratio, None where the retrained model recognises no image near any sample. details holds its 95 %
        "interval" (samples drawn anew with replacement), both probabilities, and the share of samples that the model
        recognises more often than the retrained one, with its Wilson interval. Both are to be read beside those of
        another retrained model: of two such models each knows some samples better.

    Raises:
        ValueError: what `recognised_nearby` raises.
    """
    ours, theirs = recognised_nearby([model, retrained], data, tau, valid, draws, norm, seed)
    return residual_of(ours, theirs, tau, norm, draws, seed)


def residual_of(ours: Tensor, theirs: Tensor, tau: float, norm: Norm, draws: int, seed: int) -> Metric:
    """Return the metric of `residual_knowledge` for what `recognised_nearby` measured, (N,) of each model."""
    more = (ours > theirs).double().mean().item()
    details: dict[str, Any] = {
        "recognised": ours.mean().item(),
        "recognised_by_retrained": theirs.mean().item(),
        "more_often_share": more,
        "more_often_interval": list(share_interval(more, len(ours))),
        "tau": tau,
        "norm": norm,
        "draws": draws,
        "seed": seed,
    }
    value = None
    if theirs.any():
        value = (ours.mean() / theirs.mean()).item()
        details["interval"] = _ratio_interval(ours, theirs, seed)
    return Metric(
        value,
        f"r_tau = Pr[model = y] / Pr[retrained = y] in the {norm} ball of radius {tau:g} around the forget samples; "
        "above 1 is residual knowledge, another retrained model says how far chance goes",
        len(ours),
        version_of("torch", "transformers"),
        details,
    )


def _ratio_interval(ours: Tensor, theirs: Tensor, seed: int) -> list[float | None]:
    """95 % interval of Σ ours / Σ theirs over resampled samples; None is an end without bound."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(ours), (RESAMPLES, len(ours)), generator=generator)
    ratios = (ours[rows].sum(1) / theirs[rows].sum(1)).nan_to_num(nan=1.0, posinf=math.inf).sort().values
    ends = [ratios[round(q * (RESAMPLES - 1))].item() for q in (0.025, 0.975)]
    return [end if math.isfinite(end) else None for end in ends]
