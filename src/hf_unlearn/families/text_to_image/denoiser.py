"""What one class of text-to-image pipelines has of its own: the contract that every adapter file fills in."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..denoising import sides_of
from ..noise import DDPMSchedule, FlowSchedule, NoiseSchedule

TRAIN_METHODS = ("full", "xattn", "noxattn", "selfattn")  # names as in ESD, arXiv 2303.07345
JOINT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_added_q", "norm_added_k")


@dataclass
class Encoded:
    """Prompts as text encoders give them.

    embeds: (P, tokens, D). last: position of each text's last token. pooled: (P, D'), where the network takes one.
    mask: (P, tokens) which tokens are text, where the network is told.
    """

    embeds: Tensor
    last: list[int]
    pooled: Tensor | None = None
    mask: Tensor | None = None


@dataclass
class Told:
    """What a network is told beside the noisy latents and the time.

    embeds: (B, tokens, D). pooled: (B, D'). mask: (B, tokens). time_ids: (B, 6), SDXL's size conditions. guidance:
    (B,) the scale that a guidance-distilled network embeds.
    """

    embeds: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None
    time_ids: Tensor | None = None
    guidance: Tensor | None = None


class Denoiser:
    """Base class. An adapter is stateless: it names the pipelines, and turns our words into theirs and back.

    pipelines: names of the classes.
    part: the component that is trained, a `network_class`.
    cross_attention: whether text enters through layers named `attn2`, whose keys and values are made of it.
    tokens: how many a text has, at most.
    pixels: that a side of a latent of the published models covers.
    side: of their latents, where the configuration does not say.
    text_side, image_side: words in the names of the weights of attention that read text, and of those that do not.
    fixed: first words of the names of what `noxattn` leaves alone beside those.
    asks: what the pipeline's call asks a side in pixels to be a multiple of, whatever its model.
    vectors: the (tokenizer, text encoder) pairs in which vectors can take the place of tokens.
    """

    pipelines: ClassVar[tuple[str, ...]] = ()
    part: ClassVar[str] = "transformer"
    network_class: ClassVar[str] = ""
    cross_attention: ClassVar[bool] = False
    tokens: ClassVar[int] = 512
    pixels: ClassVar[int] = 8
    side: ClassVar[int] = 128
    text_side: ClassVar[tuple[str, ...]] = JOINT
    image_side: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out", "norm_q", "norm_k")
    fixed: ClassVar[tuple[str, ...]] = ("time_text_embed", "norm_out", "proj_out")
    asks: ClassVar[int] = 1
    vectors: ClassVar[tuple[tuple[str, str], ...]] = ()

    def network(self, pipeline: Any) -> Any:
        """The network that is trained."""
        return getattr(pipeline, self.part)

    # ---- text ------------------------------------------------------------------------------------
    def encode(self, pipeline: Any, texts: Sequence[str]) -> Encoded:
        """Encode texts as the pipeline's call does before it samples."""
        raise NotImplementedError

    def keys(self, network: nn.Module, embeds: Tensor) -> Tensor:
        """(..., D') what the cross attention makes its keys and values of, from embeddings (..., D) on the CPU."""
        return embeds

    # ---- latents and noise -----------------------------------------------------------------------
    def shape(self, pipeline: Any) -> tuple[int, int, int]:
        """(C, h, w) of latents at the pipeline's own size."""
        config = self.network(pipeline).config
        return (self.channels(config), *sides_of(config.sample_size))

    def channels(self, config: Any) -> int:
        """The channels of latents, from the network's configuration."""
        return config.in_channels

    def factor(self, pipeline: Any) -> int:
        """How many pixels a side of a latent covers."""
        return pipeline.vae_scale_factor

    def patch(self, network: Any) -> int:
        """How many latents a side of an image token covers."""
        return network.config.get("patch_size") or 1

    def multiple(self, pipeline: Any) -> int:
        """What a side in pixels must be a multiple of: what an image token covers, and what the call asks for."""
        return math.lcm(self.asks, self.factor(pipeline) * self.patch(self.network(pipeline)))

    def check_sides(self, pipeline: Any, sides: Sequence[int]) -> None:
        """Raise ValueError, with what to set, unless the pipeline draws images of these (height, width) in pixels."""
        multiple, kind = self.multiple(pipeline), type(pipeline).__name__
        other = next((side for side in sides if side % multiple), None)
        if other is not None:
            near = max(multiple, round(other / multiple) * multiple)
            raise ValueError(
                f"resolution {other} does not fit {kind}: set a multiple of {multiple} pixels, such as {near}"
            )

    def length(self, network: Any, shape: Sequence[int]) -> int:
        """The number of image tokens of latents (C, h, w)."""
        side = self.patch(network)
        return (shape[-2] // side) * (shape[-1] // side)

    def shift(self, pipeline: Any, length: int) -> float:
        """μ of the dynamic shift for so many image tokens, as the pipeline's call computes it."""
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        config = pipeline.scheduler.config
        names = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}
        return calculate_shift(length, *(config.get(name, value) for name, value in names.items()))

    def schedule(self, pipeline: Any, shape: Sequence[int], options: dict[str, Any]) -> NoiseSchedule:
        """The noise schedule of latents (C, h, w): flow matching where the scheduler says so, else DDPM's.

        Args:
            options: of `FlowSchedule`.

        Raises:
            ValueError: options of flow matching for a model that is none.
        """
        scheduler = pipeline.scheduler
        if FlowSchedule.fits(scheduler):
            length = self.length(self.network(pipeline), shape)
            return FlowSchedule(scheduler, self.shift(pipeline, length), **options)
        if options:
            raise ValueError(f"{sorted(options)[0]} is for flow matching, which {type(pipeline).__name__} is not")
        return DDPMSchedule(scheduler)

    # ---- the network -----------------------------------------------------------------------------
    def arguments(self, network: nn.Module, noisy: Tensor, times: Tensor, told: Told) -> dict[str, Any]:
        """The network's arguments for noisy latents (B, C, h, w) at `times` (B,), of 0 to about 1000."""
        raise NotImplementedError

    def sketched(self, network: Any, count: int, device: Any, size: int | None = None) -> dict[str, Any]:
        """Arguments of zeros for `count` samples, to measure with.

        Args:
            size: a side of the latents as if one covered eight pixels; None for the network's own.
        """
        config = network.config
        height, width = sides_of(size * 8 // self.pixels if size else config.get("sample_size") or self.side)
        noisy = torch.zeros(count, self.channels(config), height, width, device=device)
        widths = [config.get(name) for name in ("joint_attention_dim", "caption_channels", "cross_attention_dim")]
        embeds = torch.zeros(count, self.tokens, next(filter(None, widths)), device=device)
        pooled = config.get("pooled_projection_dim")
        told = Told(embeds, None if pooled is None else torch.zeros(count, pooled, device=device))
        told.mask = torch.ones(count, self.tokens, dtype=torch.long, device=device)
        told.guidance = torch.zeros(count, device=device)
        return self.arguments(network, noisy, torch.zeros(count, device=device), told)

    def noise_pred(self, output: Tensor, noisy: Tensor) -> Tensor:
        """(B, C, h, w) of what the network returned for `noisy`; a learnt variance is cut off."""
        return output[:, : noisy.shape[1]]

    def idle(self, network: nn.Module) -> set[str]:
        """Names of weights that no output depends on."""
        return set()

    def trained(self, network: nn.Module, train_method: str) -> set[str]:
        """Names of the weights that a `train_method` trains."""
        left = {name for name, _ in network.named_parameters()} - self.idle(network)
        if train_method == "full":
            return left

        def holds(name: str, words: Sequence[str]) -> bool:
            return bool(set(name.split(".")) & set(words))

        if train_method == "noxattn":
            return {n for n in left if not holds(n, self.text_side) and n.split(".")[0] not in self.fixed}
        wanted = {"xattn": self.text_side, "selfattn": self.image_side}[train_method]
        return {name for name in left if holds(name, wanted)}

    # ---- sampling --------------------------------------------------------------------------------
    def guidance(self, pipeline: Any) -> float:
        """The guidance scale that the pipeline samples at by default."""
        return inspect.signature(pipeline.__call__).parameters["guidance_scale"].default

    def sampling(self, pipeline: Any, guidance: float, count: int) -> dict[str, Any]:
        """Arguments of the pipeline's call that ask for a guidance scale, for `count` prompts."""
        return {"guidance_scale": guidance}

    def drawn(self, pipeline: Any, images: Tensor, side: int) -> Tensor:
        """(B, C, h, w) as the network sees them, of what the call returns with `output_type="latent"`."""
        return images


class Patched(Denoiser):
    """Base class of networks whose latents enter in patches of 2 x 2, as a sequence (`packed`)."""

    def shape(self, pipeline: Any) -> tuple[int, int, int]:
        side = pipeline.default_sample_size
        return self.channels(pipeline.transformer.config), side, side

    def channels(self, config: Any) -> int:
        return config.in_channels // 4

    def patch(self, network: Any) -> int:
        return 2

    def noise_pred(self, output: Tensor, noisy: Tensor) -> Tensor:
        return unpacked(output, *noisy.shape[-2:])

    def drawn(self, pipeline: Any, images: Tensor, side: int) -> Tensor:
        side = 2 * (side // (pipeline.vae_scale_factor * 2))
        return unpacked(images, side, side)


def word_ends(tokenizer: Any, texts: Sequence[str], start: int = 1) -> list[int]:
    """The position of each text's last token, before the end token; of the end token for "".

    Args:
        start: how many tokens stand before a text.
    """
    limit = min(tokenizer.model_max_length, 512)
    lengths = [len(ids) for ids in tokenizer(list(texts), truncation=True, max_length=limit).input_ids]
    return [max(length - 2, start) for length in lengths]


def expanded(value: Tensor | None, count: int) -> Tensor | None:
    """(count, ...) of one row; None stays."""
    return None if value is None else value.expand(count, *value.shape[1:])


def packed(latents: Tensor) -> Tensor:
    """(B, h/2 · w/2, 4C): latents (B, C, h, w) as a sequence of patches of 2 x 2, as Flux and Qwen-Image take them."""
    patches: Tensor = torch.nn.functional.pixel_unshuffle(latents, 2)
    return patches.flatten(2).transpose(1, 2)


def unpacked(sequence: Tensor, height: int, width: int) -> Tensor:
    """The opposite of `packed`, for latents (B, C, height, width)."""
    count, _, channels = sequence.shape
    patches = sequence.transpose(1, 2).reshape(count, channels, height // 2, width // 2)
    return torch.nn.functional.pixel_shuffle(patches, 2)
