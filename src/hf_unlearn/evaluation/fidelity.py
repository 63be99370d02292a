"""Distances between sets of images: in a network's features, or in the latents of a pipeline's own VAE.

Only those in Inception's features are FID and KID.
"""

import re
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from ..data.images import to_pixels
from ..families.latents import posterior_mean
from .extras import need
from .generation import frechet_distance
from .inception import InceptionV3
from .metric import Metric, version_of
from .protocols import NamedNetwork

Images = Tensor | Sequence[Image]  # (N, 3, H, W) in [-1, 1], or PIL images

NEIGHBOURS = 3  # neighbours for precision and recall, as published


class _Given(nn.Module):
    """A network for torchmetrics and `frechet_distance` whose input is features already."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def features(self, given: Tensor) -> Tensor:
        return given

    forward = features


@torch.no_grad()
def features_of(network: NamedNetwork, pictures: Images, batch_size: int = 32) -> Tensor:
    """Return features (N, d) on the CPU. Only one batch of images is in memory at a time."""
    device = next(network.parameters()).device
    parts = []
    for start in range(0, len(pictures), batch_size):
        part = pictures[start : start + batch_size]
        images = part if isinstance(part, Tensor) else torch.stack([to_pixels(p, None, 3) for p in part])
        parts.append(network.features(images.to(device)).float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def latents_of(vae: Any, pictures: Sequence[Image], batch_size: int = 4) -> Tensor:
    """Return the latents (N, C, h, w) of pictures of one size on the CPU, scaled as the pipeline's UNet sees them.

    Raises:
        ValueError: a latent is not finite.
    """
    device, dtype = next(vae.parameters()).device, next(vae.parameters()).dtype
    parts = []
    for start in range(0, len(pictures), batch_size):
        images = torch.stack([to_pixels(p, None, 3) for p in pictures[start : start + batch_size]])
        parts.append(posterior_mean(vae, images.to(device, dtype)).float().cpu())
    latents = torch.cat(parts)
    if not latents.isfinite().all():
        raise ValueError(
            "the VAE gives latents that are not finite, as when it overflows in half precision: load it in float32 or "
            "bfloat16, or set feature_model"
        )
    return latents


def latent_distance(before: Tensor, after: Tensor) -> Metric:
    """Compute how far pictures moved that two models drew of the same prompts from the same seeds.

    It needs no network beside the pipeline's own VAE, so it works offline for every text-to-image model.

    Args:
        before, after: `latents_of` the pictures of each model, (N, C, h, w), in the same order.

    Returns:
        The root of the mean squared difference of two pictures' latents, averaged over the pairs. Where N > 1,
        details["between_prompts"] has the same average over pairs of different pictures of `before`: as far as a
        picture of something else is away.

    Raises:
        ValueError: there are no pictures, or the shapes differ.
    """
    if before.shape != after.shape or not len(before):
        raise ValueError(f"a latent distance compares pairs, got {tuple(before.shape)} and {tuple(after.shape)}")
    a, b = before.double().flatten(1), after.double().flatten(1)
    details = {}
    if len(a) > 1:
        others = torch.pdist(a) / a.shape[1] ** 0.5
        details["between_prompts"] = others.mean().item()
    return Metric(
        (a - b).square().mean(1).sqrt().mean().item(),
        "root mean square difference of the VAE latents of two pictures of one prompt and seed, mean over pairs; "
        "0 is the same picture",
        samples=len(a),
        library=version_of("torch", "diffusers"),
        details=details,
    )


def feature_distance(network: NamedNetwork, real: Images, generated: Images) -> Metric:
    """Compute the Frechet distance of two sets of images, whose definition names the network.

    Raises:
        ValueError: a side has fewer than two images.
    """
    _check_counts(real, generated, 2, "a Frechet distance")
    return _frechet(network, features_of(network, real), features_of(network, generated))


def fidelity(network: NamedNetwork, real: Images, generated: Images) -> dict[str, Metric]:
    """Measure how close generated images are to real ones: Frechet and kernel distance, precision and recall.

    Args:
        network: `InceptionV3` gives "fid", "kid", "precision" and "recall". Any other network gives metrics with
            its name: "frechet_distance_NAME", "kernel_distance_NAME", "precision_NAME", "recall_NAME".

    Raises:
        ValueError: a side has fewer than four images (precision and recall need three neighbours).
        OSError: torchmetrics does not import.
    """
    _check_counts(real, generated, NEIGHBOURS + 1, "precision and recall")
    a, b = features_of(network, real), features_of(network, generated)
    figures = (_frechet(network, a, b), _kernel(network, a, b), *_precision_recall(network, a, b))
    return dict(zip(_names(network), figures))


def _names(network: NamedNetwork) -> list[str]:
    if isinstance(network, InceptionV3):
        return ["fid", "kid", "precision", "recall"]
    return [f"{kind}_{suffix_of(network)}" for kind in ("frechet_distance", "kernel_distance", "precision", "recall")]


def suffix_of(network: NamedNetwork) -> str:
    """Return the network's name as the end of a metric's name: lower case, with "_" between its words."""
    return re.sub(r"\W+", "_", network.name.lower()).strip("_")


def _check_counts(real: Images, generated: Images, least: int, what: str) -> None:
    if min(len(real), len(generated)) < least:
        counts = f"got {len(real)} real and {len(generated)} generated"
        words = {2: "two", 4: "four"}[least]
        raise ValueError(f"{what} needs at least {words} pictures on each side, {counts}")


def _metric(
    network: NamedNetwork, value: float, text: str, real: Tensor, generated: Tensor, **details: float | str
) -> Metric:
    digest = getattr(network, "weights_digest", None)
    weights = {} if digest is None else {"weights_sha256": digest}
    library = version_of("torch", "torchmetrics")
    return Metric(value, text, len(generated), library, {"real": len(real), **weights, **details})


def _frechet(network: NamedNetwork, real: Tensor, generated: Tensor) -> Metric:
    """|μ_r - μ_g|² + tr(C_r + C_g - 2 (C_r C_g)^½) (arXiv 1706.08500), by torchmetrics."""
    need("eval", "a Frechet distance", "leave that figure out")
    value = frechet_distance(_Given(network.num_features), real, generated)
    what = f"Frechet distance of {network.num_features} {network.label} features"
    if isinstance(network, InceptionV3):
        text = f"FID: {what}; 0 is equal; too large for few pictures: compare at equal counts only"
    else:
        text = f"{what}; not an FID; 0 is equal"
    return _metric(network, value, text, real, generated)


def _kernel(network: NamedNetwork, real: Tensor, generated: Tensor) -> Metric:
    """Unbiased squared MMD under (x·y / d + 1)³ (arXiv 1801.01401), by torchmetrics, the same in every call."""
    need("eval", "a kernel distance", "leave that figure out")
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(1000, len(real), len(generated))
    subsets = 1 if len(real) == len(generated) == size else 100
    given = _Given(network.num_features)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* will save all extracted features in buffer")
        metric = KernelInceptionDistance(given, subsets=subsets, subset_size=size, sync_on_compute=False)
    metric.update(real.double(), real=True)
    metric.update(generated.double(), real=False)
    with torch.random.fork_rng(devices=[]):  # torchmetrics draws the subsets from torch's global generator
        torch.manual_seed(0)
        mean, spread = metric.compute()
    name = "KID" if isinstance(network, InceptionV3) else "kernel distance, not a KID"
    text = (
        f"{name}: unbiased squared MMD of {network.num_features} {network.label} features under a cubic kernel, "
        f"mean of {subsets} subsets of {size}; 0 is equal, and it may fall below"
    )
    return _metric(network, mean.item(), text, real, generated, spread=spread.item())


def _precision_recall(network: NamedNetwork, real: Tensor, generated: Tensor) -> tuple[Metric, Metric]:
    """Shares of images within the other set's manifold: balls to each one's third neighbour (arXiv 1904.06991)."""
    what = f"by balls to the third neighbour in {network.num_features} {network.label} features (arXiv 1904.06991)"
    texts = (
        f"share of generated pictures that lie among the real ones, {what}; 1 is best",
        f"share of real pictures that lie among the generated ones, {what}; 1 is best",
    )
    values = manifold_share(generated, real), manifold_share(real, generated)
    precision, recall = (_metric(network, v, text, real, generated) for v, text in zip(values, texts))
    return precision, recall


def manifold_share(points: Tensor, reference: Tensor, neighbours: int = NEIGHBOURS, batch_size: int = 1000) -> float:
    """Return the share of `points` (N, d) in a ball around a `reference` point (M, d) up to its k-th neighbour."""
    reference = reference.double()

    def distances(part: Tensor) -> Tensor:
        # Exact: the fast distances can leave a point outside its own ball.
        return torch.cdist(part, reference, compute_mode="donot_use_mm_for_euclid_dist")

    # A point is its own nearest neighbour, hence the + 1.
    radii = torch.cat([distances(p).kthvalue(neighbours + 1).values for p in reference.split(batch_size)])
    inside = [(distances(part.double()) <= radii).any(1) for part in points.split(batch_size)]
    return torch.cat(inside).double().mean().item()
