"""Text to image: `StableDiffusionPipeline` (1.x, 2.x) and `StableDiffusionXLPipeline`; a label is a prompt."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ..base import class_names
from ..denoising import Denoising, sides_of
from ..description import Description
from ..noise import DDPMSchedule

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
# Which of the UNet's weights are trained (names as in ESD, arXiv 2303.07345).
TRAIN_METHODS = ("full", "xattn", "noxattn", "selfattn")


@dataclass
class Prompts:
    """Texts and what the text encoders make of them. Number 0 is "", the null prompt of guidance."""

    texts: list[str]
    embeds: Tensor  # (P, tokens, D)
    last: list[int]  # position of each text's last token; of the end token for ""
    pooled: Tensor | None = None  # (P, D') for SDXL

    def __post_init__(self):
        self._numbers = {text: number for number, text in enumerate(self.texts)}

    def number(self, text: str) -> int:
        """The label of a prompt. Raises ValueError for one that was not encoded."""
        if text not in self._numbers:
            raise ValueError(f"prompt {text!r} was not encoded: pass it to encode_prompts")
        return self._numbers[text]


@torch.no_grad()
def encode_prompts(pipeline: Any, texts: Sequence[str], batch_size: int = 32) -> Prompts:
    """The embeddings of "" and of `texts` (each once), on the CPU, as the pipeline's `encode_prompt` makes them."""
    every = list(dict.fromkeys(["", *texts]))
    embeds, pooled, last = [], [], []
    for start in range(0, len(every), batch_size):
        part = every[start : start + batch_size]
        options = {"device": pipeline.device, "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
        encoded = pipeline.encode_prompt(part, **options)
        embeds.append(encoded[0].cpu())
        limit = pipeline.tokenizer.model_max_length
        lengths = [len(ids) for ids in pipeline.tokenizer(part, truncation=True, max_length=limit).input_ids]
        last += [max(length - 2, 1) for length in lengths]  # the first and the last are the start and the end
        if len(encoded) == 4:  # SDXL: prompt, negative, pooled, negative pooled
            pooled.append(encoded[2].cpu())
    return Prompts(every, torch.cat(embeds), last, torch.cat(pooled) if pooled else None)


class TextToImage(Denoising):
    """Denoising by the UNet of a Stable Diffusion pipeline; `pixel_values` are latents (C, h, w), labels prompts.

    The text encoders and the VAE are not needed once prompts and images are encoded, and are never trained.

    Args:
        pipeline: a StableDiffusionPipeline or StableDiffusionXLPipeline.
        prompts: what labels mean, from `encode_prompts`.
        anchors: {prompt: prompt that it is matched to}, e.g. {"a photo of a church": "a photo of a building"}.
        train_method: full; xattn, the cross attention; selfattn, the self attention; noxattn, all but the cross
            attention, the time embedding and the output layer.
        label_dropout: share of null prompts among the retain samples.
        resolution: of the images in pixels, one number or (height, width), for SDXL's size conditions; default that of
            the UNet.
        others: as in `Denoising`.

    Raises:
        ValueError: another pipeline, an unknown train_method, or a prompt that is its own anchor.
    """

    kinds: ClassVar[tuple[str, ...]] = ("diffusion", "text to image")
    anchor_rule: ClassVar[str] = "the given anchor prompt, else the empty prompt"
    embeds: Tensor  # (P, tokens, D)
    pooled: Tensor | None  # (P, D') for SDXL
    time_ids: Tensor  # (1, 6)

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
    ):
        if not class_names(pipeline) & set(PIPELINES):
            raise ValueError(f"{type(pipeline).__name__} is not supported: give a {' or '.join(PIPELINES)}")
        if train_method not in TRAIN_METHODS:
            raise ValueError(
                f"train_method must be one of {', '.join(TRAIN_METHODS)} or text_encoder, got {train_method!r}"
            )
        rest = (label_dropout, antithetic, forget_label_dropout, timestep_bins)
        super().__init__(pipeline, pipeline.unet, DDPMSchedule(pipeline.scheduler), len(prompts.texts), 0, *rest)
        self.prompts, self.train_method = prompts, train_method
        self._shifts: Sequence[Tensor] | None = None  # of the conditions
        self._shape: tuple[int, ...] | None = None  # of the latents, once some were checked
        same = [text for text, anchor in (anchors or {}).items() if text == anchor]
        if same:
            raise ValueError(f"prompt {same[0]!r} is its own anchor: choose another anchor_concept")
        self.chosen = {prompts.number(text): prompts.number(anchor) for text, anchor in (anchors or {}).items()}
        self.register_buffer("embeds", prompts.embeds, persistent=False)
        self.register_buffer("pooled", prompts.pooled, persistent=False)
        sides = sides_of(resolution or [side * pipeline.vae_scale_factor for side in self._default_shape[1:]])
        self.register_buffer("time_ids", torch.tensor([[*sides, 0, 0, *sides]]), persistent=False)
        chosen = trained_names(self.network, train_method)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in chosen)
        for part in (pipeline.vae, pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)):
            if part is not None:
                part.requires_grad_(False)

    def denoise(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None  # every image has a prompt
        return network(noisy, timesteps, **self._condition(labels, noisy.dtype)).sample

    def embedded_losses(self, batch: dict[str, Tensor], embeds: Tensor, pooled: Tensor | None = None) -> Tensor:
        """Per-sample losses (B,), fp32, under embeddings in place of prompts, with gradient to them.

        Args:
            batch: `pixel_values`, `noise` and `timesteps`, as `forward` takes them.
            embeds: (B, tokens, D); pooled: (B, D') for SDXL.
        """
        images, noise, timesteps = batch["pixel_values"], batch["noise"], batch["timesteps"]
        noisy = self.schedule.add_noise(images, noise, timesteps)
        options = self._embedded(embeds, pooled, self.dtype)
        prediction = self.network(noisy.to(self.dtype), timesteps, **options).sample
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

    def _condition(self, labels: Tensor, dtype: torch.dtype) -> dict[str, Any]:
        """Arguments of the UNet that say which prompts."""
        embeds, *pooled = self.moved([rows[labels] for rows in self.conditions])
        return self._embedded(embeds, pooled[0] if pooled else None, dtype)

    def _embedded(self, embeds: Tensor, pooled: Tensor | None, dtype: torch.dtype) -> dict[str, Any]:
        """Arguments of the UNet for embeddings (B, tokens, D) and pooled ones (B, D')."""
        options: dict[str, Any] = {"encoder_hidden_states": embeds.to(dtype)}
        if pooled is not None:
            time_ids = self.time_ids.expand(len(embeds), -1)
            options["added_cond_kwargs"] = {"text_embeds": pooled.to(dtype), "time_ids": time_ids}
        return options

    def release(self) -> None:
        """Move the VAE and the text encoders to the CPU: training needs neither."""
        for name in ("vae", "text_encoder", "text_encoder_2"):
            if getattr(self.pipeline, name, None) is not None:
                getattr(self.pipeline, name).to("cpu")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def last_tokens(self, all_after: bool = False) -> Tensor:
        """(P, n, D) embeddings on the CPU: n = 1, each prompt's last token, or with `all_after` also the end and the
        padding after it, as many as the prompts have in common."""
        last, length = torch.tensor(self.prompts.last), self.prompts.embeds.shape[1]
        count = length - int(last.max()) if all_after else 1
        return self.prompts.embeds[torch.arange(len(last))[:, None], last[:, None] + torch.arange(count)]

    def choose_anchors(self, forgotten: set[int], samples: int, seed: int) -> None:
        """The given anchors; for prompts without one the null prompt."""
        self.anchors = {label: self.chosen.get(label, 0) for label in self.class_labels}

    def describe(self, labels: Sequence[int]) -> Description:
        """As for every denoiser, with the forget prompts and their anchors, and which weights are trained."""
        return replace(super().describe(labels), train_method=self.train_method)

    def label_name(self, label: int) -> str:
        return self.prompts.texts[label]

    def check(self, example: dict[str, Tensor], labels: list[int] | None) -> None:
        shape, config = tuple(example["pixel_values"].shape), self.pipeline.unet.config
        if len(shape) != 3 or shape[0] != config.in_channels:
            raise ValueError(f"latents have shape {shape} but the UNet takes {config.in_channels} channels")
        self._shape = shape
        if labels is None:
            raise ValueError("the data has no prompts: give each latent the number of its prompt as label")
        outside = sorted(set(labels) - set(range(len(self.prompts.texts))))
        if outside:
            raise ValueError(f"labels {outside[:5]} are out of range: {self.num_classes} prompts were encoded")

    def reload_network(self, folder: str) -> Any:
        return UNet2DConditionModel.from_pretrained(folder, subfolder="unet", use_safetensors=True)

    @property
    def _default_shape(self) -> tuple[int, ...]:
        config = self.pipeline.unet.config
        return (config.in_channels, *sides_of(config.sample_size))

    def probe(self, generator: torch.Generator) -> tuple[tuple, dict]:
        noisy = torch.randn((2, *(self._shape or self._default_shape)), generator=generator).to(self.dtype)
        labels = torch.tensor([0, len(self.prompts.texts) - 1], device=self.embeds.device)
        return (noisy, self.schedule.examples()), self._condition(labels, self.dtype)


def trained_names(unet: nn.Module, train_method: str) -> set[str]:
    """Names of the parameters that a `train_method` trains."""
    names = [name for name, _ in unet.named_parameters()]
    if train_method == "full":
        return set(names)
    if train_method == "noxattn":
        fixed = ("attn2", "time_embed", "time_embedding", "conv_out", "conv_norm_out")
        return {name for name in names if not any(word in name.split(".") for word in fixed)}
    word = {"xattn": "attn2", "selfattn": "attn1"}[train_method]
    return {name for name in names if word in name.split(".")}
