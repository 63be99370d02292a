"""Text to image: a label is a prompt. What differs between pipelines lies in the adapters (`pipelines.DENOISERS`)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ...common.weights import networks_of
from ..denoising import Denoising, sides_of
from ..description import Description
from .denoiser import TRAIN_METHODS, Told, expanded
from .pipelines import PIPELINES, denoiser_of, trained_names

__all__ = ["PIPELINES", "TRAIN_METHODS", "Prompts", "TextToImage", "encode_prompts", "trained_names"]


@dataclass
class Prompts:
    """Texts and what the text encoders make of them. Number 0 is "", the null prompt of guidance."""

    texts: list[str]
    embeds: Tensor  # (P, tokens, D)
    last: list[int]  # position of each text's last token; of the end token for ""
    pooled: Tensor | None = None  # (P, D') for SDXL, SD3 and Flux
    mask: Tensor | None = None  # (P, tokens), which are text, where the network is told

    def __post_init__(self):
        self._numbers = {text: number for number, text in enumerate(self.texts)}

    def number(self, text: str) -> int:
        """The label of a prompt. Raises ValueError for one that was not encoded."""
        if text not in self._numbers:
            raise ValueError(f"prompt {text!r} was not encoded: pass it to encode_prompts")
        return self._numbers[text]


@torch.no_grad()
def encode_prompts(pipeline: Any, texts: Sequence[str], batch_size: int = 32) -> Prompts:
    """The embeddings of "" and of `texts` (each once), on the CPU, as the pipeline's call makes them."""
    adapter, every = denoiser_of(pipeline), list(dict.fromkeys(["", *texts]))
    parts = [adapter.encode(pipeline, every[start : start + batch_size]) for start in range(0, len(every), batch_size)]
    longest = max(part.embeds.shape[1] for part in parts)

    def joined(values: list[Tensor | None], tokens: bool = True) -> Tensor | None:
        """One tensor of those that are there, the tokens filled up with zeros to the longest."""
        given = [value.cpu() for value in values if value is not None]
        if tokens:
            given = [pad(v, [0, 0] * (v.ndim - 2) + [0, longest - v.shape[1]]) for v in given]
        return torch.cat(given) if given else None

    embeds = joined([part.embeds for part in parts])
    assert embeds is not None  # "" is always there
    mask = joined([part.mask for part in parts])
    last = [position for part in parts for position in part.last]
    return Prompts(every, embeds, last, joined([part.pooled for part in parts], tokens=False), mask)


class TextToImage(Denoising):
    """Denoising by the network of a text-to-image pipeline; `pixel_values` are latents (C, h, w), labels prompts.

    The text encoders and the VAE are not needed once prompts and images are encoded, and are never trained.

    Args:
        pipeline: one of `PIPELINES`.
        prompts: what labels mean, from `encode_prompts`.
        anchors: {prompt: prompt that it is matched to}, e.g. {"a photo of a church": "a photo of a building"}.
        train_method: full; xattn, the cross attention, or in joint attention the projections of the text; selfattn,
            the attention of the image; noxattn, all but what xattn trains, the time embedding and the output layer.
        label_dropout: share of null prompts among the retain samples.
        resolution: of the images in pixels, one number or (height, width), for SDXL's size conditions and the shift of
            the noise; default that of the network.
        guidance: the scale that a guidance-distilled network is told; default what its pipeline samples at.
        flow: options of `FlowSchedule`, such as weighting_scheme.
        others: as in `Denoising`.

    Raises:
        ValueError: another pipeline, an unknown train_method, a prompt that is its own anchor, or a resolution that
            the pipeline does not draw.
    """

    kinds: ClassVar[tuple[str, ...]] = ("diffusion", "text to image")
    anchor_rule: ClassVar[str] = "the given anchor prompt, else the empty prompt"
    embeds: Tensor  # (P, tokens, D)
    pooled: Tensor | None  # (P, D') where the network takes one
    mask: Tensor | None  # (P, tokens)
    time_ids: Tensor  # (1, 6)
    guidance: Tensor  # (1,)

    def __init__(
        self,
        pipeline: Any,
        prompts: Prompts,
        anchors: dict[str, str] | None = None,
        train_method: str = "full",
        label_dropout: float = 0.1,
        antithetic: bool = True,
        forget_label_dropout: bool = False,
        timestep_bins: int = 10,
        resolution: int | tuple[int, int] | None = None,
        guidance: float | None = None,
        **flow: Any,
    ):
        self.denoiser = adapter = denoiser_of(pipeline)
        if train_method not in TRAIN_METHODS:
            raise ValueError(
                f"train_method must be one of {', '.join(TRAIN_METHODS)} or text_encoder, got {train_method!r}"
            )
        rest = (label_dropout, antithetic, forget_label_dropout, timestep_bins)
        shape, factor = adapter.shape(pipeline), adapter.factor(pipeline)
        sides = sides_of(resolution or [side * factor for side in shape[1:]])
        if resolution is not None:
            adapter.check_sides(pipeline, sides)
        schedule = adapter.schedule(pipeline, [shape[0], *(side // factor for side in sides)], flow)
        network = adapter.network(pipeline)
        super().__init__(pipeline, network, schedule, len(prompts.texts), 0, *rest)
        self.prompts, self.train_method = prompts, train_method
        self._shifts: Sequence[Tensor] | None = None  # of the conditions
        self._shape: tuple[int, ...] | None = None  # of the latents, once some were checked
        same = [text for text, anchor in (anchors or {}).items() if text == anchor]
        if same:
            raise ValueError(f"prompt {same[0]!r} is its own anchor: choose another anchor_concept")
        self.chosen = {prompts.number(text): prompts.number(anchor) for text, anchor in (anchors or {}).items()}
        scale = adapter.guidance(pipeline) if guidance is None else guidance
        told = prompts.embeds.new_full((1,), scale, dtype=torch.float32)  # on the device of the others
        values = {"embeds": prompts.embeds, "pooled": prompts.pooled, "mask": prompts.mask, "guidance": told}
        values["time_ids"] = torch.tensor([[*sides, 0, 0, *sides]])
        for name, value in values.items():
            self.register_buffer(name, value, persistent=False)
        chosen = adapter.trained(network, train_method)
        if not chosen:
            raise ValueError(f"{type(network).__name__} has no weights that train_method {train_method!r} names")
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in chosen)
        for part in self._others:
            part.requires_grad_(False)

    @property
    def _others(self) -> list[nn.Module]:
        """The VAE and the text encoders."""
        every = networks_of(self.pipeline).items()
        return [part for name, part in every if name == "vae" or name.startswith("text_encoder")]

    def denoise(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None  # every image has a prompt
        return self._output(network, noisy, timesteps, self._condition(labels, noisy.dtype))

    def _output(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, told: Told) -> Tensor:
        """(B, C, h, w) of a network for noisy latents."""
        adapter, times = self.denoiser, self.schedule.times(timesteps)
        output = network(**adapter.arguments(network, noisy, times, told), return_dict=False)[0]
        return adapter.noise_pred(output, noisy)

    def embedded_losses(
        self, batch: dict[str, Tensor], embeds: Tensor, pooled: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Per-sample losses (B,), fp32, under embeddings in place of prompts, with gradient to them.

        Args:
            batch: `pixel_values`, `noise` and `timesteps`, as `forward` takes them.
            embeds: (B, tokens, D). pooled: (B, D'). mask: (B, tokens).
        """
        images, noise, timesteps = batch["pixel_values"], batch["noise"], batch["timesteps"]
        noisy = self.schedule.add_noise(images, noise, timesteps)
        told = self._told(embeds, pooled, mask, self.dtype)
        prediction = self._output(self.network, noisy.to(self.dtype), timesteps, told)
        return self._losses(prediction, None, images, noise, noisy, timesteps)

    @property
    def conditions(self) -> list[Tensor]:
        return [part for part in (self.embeds, self.pooled) if part is not None]

    @contextmanager
    def shifted(self, shifts: Sequence[Tensor]) -> Iterator[None]:
        before, self._shifts = self._shifts, shifts
        try:
            yield
        finally:
            self._shifts = before

    def moved(self, conditions: Sequence[Tensor]) -> list[Tensor]:
        """Conditions (B, ...), shifted inside of `shifted`."""
        if self._shifts is None:
            return list(conditions)
        return [rows + shift.to(rows.dtype) for rows, shift in zip(conditions, self._shifts, strict=True)]

    def _condition(self, labels: Tensor, dtype: torch.dtype) -> Told:
        """What the network is told of the prompts."""
        embeds, *pooled = self.moved([rows[labels] for rows in self.conditions])
        mask = None if self.mask is None else self.mask[labels]
        return self._told(embeds, pooled[0] if pooled else None, mask, dtype)

    def _told(self, embeds: Tensor, pooled: Tensor | None, mask: Tensor | None, dtype: torch.dtype) -> Told:
        """What the network is told: embeddings (B, tokens, D), pooled ones (B, D') and a mask (B, tokens)."""
        count = len(embeds)
        pooled = None if pooled is None else pooled.to(dtype)
        return Told(embeds.to(dtype), pooled, mask, expanded(self.time_ids, count), expanded(self.guidance, count))

    def release(self) -> None:
        """Move the VAE and the text encoders to the CPU: training needs neither."""
        for part in self._others:
            part.to("cpu")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def last_tokens(self, all_after: bool = False) -> Tensor:
        """(P, n, D) what the cross attention reads, on the CPU: n = 1, each prompt's last token, or with `all_after`
        also the end and the padding after it, as many as the prompts have in common; of the padding only what is
        read."""
        last, length = torch.tensor(self.prompts.last), self.prompts.embeds.shape[1]
        ends = torch.full_like(last, length) if self.prompts.mask is None else self.prompts.mask.sum(1).cpu()
        count = length - int(last.max()) if self.prompts.mask is None else int((ends - last).min())
        rows = self.prompts.embeds[
            torch.arange(len(last))[:, None], last[:, None] + torch.arange(count if all_after else 1)
        ]
        with torch.no_grad():
            return self.denoiser.keys(self.network, rows).float().cpu()

    def choose_anchors(self, forgotten: set[int], samples: int, seed: int) -> None:
        """The given anchors; for prompts without one the null prompt."""
        self.anchors = {label: self.chosen.get(label, 0) for label in self.class_labels}

    def describe(self, labels: Sequence[int]) -> Description:
        """As for every denoiser, with the forget prompts and their anchors, and which weights are trained."""
        return replace(super().describe(labels), train_method=self.train_method)

    def label_name(self, label: int) -> str:
        return self.prompts.texts[label]

    def check(self, example: dict[str, Tensor], labels: list[int] | None) -> None:
        shape, channels = tuple(example["pixel_values"].shape), self._default_shape[0]
        if len(shape) != 3 or shape[0] != channels:
            name = "UNet" if self.denoiser.part == "unet" else "transformer"
            raise ValueError(f"latents have shape {shape} but the {name} takes {channels} channels")
        self._shape = shape
        if labels is None:
            raise ValueError("the data has no prompts: give each latent the number of its prompt as label")
        outside = sorted(set(labels) - set(range(len(self.prompts.texts))))
        if outside:
            raise ValueError(f"labels {outside[:5]} are out of range: {self.num_classes} prompts were encoded")

    def reload_network(self, folder: str) -> Any:
        part = self.denoiser.part
        return type(self.network).from_pretrained(folder, subfolder=part, use_safetensors=True)

    @property
    def cross_attends(self) -> bool:
        """Whether text enters through cross attention (`attn2`)."""
        return self.denoiser.cross_attention

    @property
    def _default_shape(self) -> tuple[int, ...]:
        return self.denoiser.shape(self.pipeline)

    def probe(self, generator: torch.Generator) -> tuple[tuple, dict]:
        noisy = torch.randn((2, *(self._shape or self._default_shape)), generator=generator).to(self.dtype)
        labels = torch.tensor([0, len(self.prompts.texts) - 1], device=self.embeds.device)
        noisy, timesteps = noisy.to(self.embeds.device), self.schedule.examples().to(self.embeds.device)
        told, times = self._condition(labels, self.dtype), self.schedule.times(timesteps)
        return (), self.denoiser.arguments(self.network, noisy, times, told)
