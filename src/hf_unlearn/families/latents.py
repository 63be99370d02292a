"""Latents on disk: images through the VAE once, or drawn by the model itself; found again by what they came from."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..common.bars import bar
from ..common.files import atomic, write_text
from ..common.identity import identity_of, tensor_digest
from ..common.keys import code_key, content_key
from ..data.fingerprint import whole_fingerprint
from ..data.images import ArrayDataset
from ..data.pairs import collate, labels_of
from ..data.protocols import SizedDataset
from .text_to_image.pipelines import denoiser_of, side_of
from .vae import posterior_mean


@dataclass
class Drawing:
    """How the model draws its own data. One generator an image, so that the batch size changes nothing."""

    num_inference_steps: int = 30
    guidance_scale: float = 7.5
    resolution: int | None = None  # in pixels; default the model's
    batch_size: int = 4
    seed: int = 0


UNSEEN = ("safety_checker", "feature_extractor")  # parts that only look at finished pictures


class Cache:
    """Tensors by content in a folder: written part by part, so that an interrupted job goes on, each part whole.

    Args:
        content: everything that the tensors depend on, as JSON. The code that computes them is added.
    """

    def __init__(self, folder: str | Path, *content: Any):
        content = (*content, code_key("families.latents"))
        self.key = content_key(content)
        self.folder = Path(folder) / self.key
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "content.json").exists():
            write_text(self.folder / "content.json", json.dumps(content, indent=1))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"

    def missing(self, numbers: Iterable[int]) -> list[int]:
        """Those that are not there, or hold other content than was written: cut off, filled with zeros, replaced."""
        return [number for number in numbers if not _readable(self._path(number))]

    def write(self, number: int, latents: Tensor) -> None:
        """Keep a part. Raises ValueError if it is not finite: training on it would only fail later."""
        if not latents.isfinite().all():
            raise ValueError(
                f"part {number} of the latents is not finite, as when a VAE or UNet overflows in half precision: "
                "load the model in float32 or bfloat16"
            )
        with atomic(self._path(number)) as partial:
            kept = latents.float().contiguous().cpu()
            save_file({"latents": kept}, partial, metadata={"digest": tensor_digest(kept)})

    def read(self, number: int) -> Tensor:
        return load_file(self._path(number))["latents"]


def _readable(path: Path) -> bool:
    """Whether a file holds the latents that were written there."""
    try:
        with safe_open(path, framework="pt") as file:
            told = (file.metadata() or {}).get("digest")
            return "latents" in file.keys() and tensor_digest(file.get_tensor("latents")) == told
    except (FileNotFoundError, SafetensorError):
        return False


@torch.no_grad()
def encode_images(vae: Any, dataset: SizedDataset, folder: str | Path, flips: bool = True, batch_size: int = 16):
    """An ArrayDataset of the latents of `dataset` (`pixel_values` in [-1, 1]), with its labels; cached in `folder`.

    A latent is the mean of the VAE's posterior times its scaling factor: the posterior's spread is far below what
    the diffusion adds at its first step. With `flips` every image follows mirrored too, in a second half.

    Raises:
        ValueError: the data is empty.
    """
    if len(dataset) == 0:
        raise ValueError("no images to encode: the data set is empty")
    cache = Cache(folder, identity_of(vae), whole_fingerprint(dataset), flips, batch_size)
    half = -(-len(dataset) // batch_size)
    parts = range(half * (1 + flips))
    device, dtype = next(vae.parameters()).device, next(vae.parameters()).dtype
    wanted = cache.missing(parts)
    for number in bar(wanted, "encoding"):
        start, mirrored = number % half * batch_size, number >= half
        batch = collate([dataset[i] for i in range(start, min(start + batch_size, len(dataset)))])
        images = batch["pixel_values"].to(device, dtype)
        cache.write(number, posterior_mean(vae, images.flip(-1) if mirrored else images))
    labels = labels_of(dataset)
    return ArrayDataset(
        torch.cat([cache.read(n) for n in parts]), None if labels is None else torch.tensor(labels * (1 + flips))
    )


def draw_latents(pipeline: Any, prompts: Sequence[str], drawing: Drawing, folder: str | Path) -> Tensor:
    """One latent (C, h, w) a prompt, drawn by a text-to-image pipeline, (N, C, h, w); cached in `folder`.

    Image i is drawn from seed `drawing.seed + i`. The prompts and seeds are written beside the latents.
    """
    size = side_of(pipeline, drawing.resolution)
    settings = {**{k: v for k, v in asdict(drawing).items() if k != "batch_size"}, "resolution": size}
    # A part is one image: neither the batch size nor an interrupt changes what is on disk.
    cache = Cache(folder, identity_of_pipeline(pipeline), list(prompts), settings)
    rows = [{"prompt": prompt, "seed": drawing.seed + i} for i, prompt in enumerate(prompts)]
    write_text(cache.folder / "prompts.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    missing = cache.missing(range(len(prompts)))
    batches = [missing[k : k + drawing.batch_size] for k in range(0, len(missing), drawing.batch_size)]
    for batch in bar(batches, "drawing"):
        for i, latents in zip(batch, _drawn(pipeline, prompts, batch, drawing, size)):
            cache.write(i, latents)
    return torch.stack([cache.read(i) for i in range(len(prompts))])


def drawn_latents(pipeline: Any, prompts: Sequence[str], drawing: Drawing) -> Tensor:
    """As `draw_latents`, with nothing on disk."""
    size = side_of(pipeline, drawing.resolution)
    batches = [range(k, min(k + drawing.batch_size, len(prompts))) for k in range(0, len(prompts), drawing.batch_size)]
    parts = bar(batches, "drawing")
    return torch.cat([_drawn(pipeline, prompts, batch, drawing, size).float().cpu() for batch in parts])


def _drawn(pipeline: Any, prompts: Sequence[str], which: Sequence[int], drawing: Drawing, size: int) -> Tensor:
    """Latents (n, C, h, w) of those prompts, each from the generator of its number."""
    adapter = denoiser_of(pipeline)
    drawn = pipeline(
        prompt=[prompts[i] for i in which],  # by name: Flux 2 takes an image first
        num_inference_steps=drawing.num_inference_steps,
        generator=[torch.Generator().manual_seed(drawing.seed + i) for i in which],
        height=size,
        width=size,
        output_type="latent",
        **adapter.sampling(pipeline, drawing.guidance_scale, len(which)),
    ).images
    return adapter.drawn(pipeline, drawn, size)


def identity_of_pipeline(pipeline: Any) -> dict[str, Any]:
    """What a pipeline draws with: all of its parts and settings, without those that only look at finished pictures."""
    return {name: value for name, value in identity_of(pipeline).items() if name not in UNSEEN}
