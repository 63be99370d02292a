"""A sequence on a diffusion model from a YAML file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...data.images import digits
from ...data.sources import load_images
from ...evaluation.class_pictures import DIGITS_DDPM
from ...evaluation.emoji import EMOJI_SD, OBJECTS, STYLES, prompt_of
from ...families import denoiser_of
from ...families.concept_words import RETAIN_PROMPTS, TEMPLATES
from ...families.latents import Drawing
from ...families.load import load_model, prepare_family
from ...training.config import UnlearnConfig
from ..memory import ReplayMemory
from ..registry import strategy_of
from .classes import ClassPainter
from .painter import Painter
from .prompts import PromptPainter
from .runner import DiffusionSequence

SHIPPED = {"digits_ddpm": str(DIGITS_DDPM), "emoji_sd": str(EMOJI_SD)}


@dataclass(frozen=True)
class PictureSetup:
    """What a file of requests says of a diffusion model.

    model: "digits_ddpm", "emoji_sd", or folder or Hub id of a UNet2D or text-to-image pipeline.
    data: images with classes, to learn classes from: "digits", or a folder or Hub id.
    prompts: what a text-to-image model replays and retains; by default a mixed list, of emoji_sd all that it draws.
    templates: prompts of concepts that none of `prompts` names, with "{}" in the place of the concept.
    memory: `samples`, how many pictures are replayed, and `seed`.
    method, options: a strategy, clu or sfron, and its options.
    match: whether retained outputs are matched to the first model, or to the last.
    hold: whether forgotten prompts are held on their anchors in later requests.
    forget_pictures: pictures that are drawn of what is to be forgotten.
    steps, batch_size, learning_rate, checkpoint_steps: as of a sequence on a classifier.
    num_inference_steps, guidance_scale: of pictures that are drawn.
    """

    model: str
    data: str | None = None
    prompts: list[str] = field(default_factory=list)
    templates: list[str] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)
    method: str = "clu"
    options: dict[str, Any] = field(default_factory=dict)
    match: str = "first"
    hold: bool = True
    forget_pictures: int = 96
    steps: int = 100
    batch_size: int = 16
    seed: int = 0
    learning_rate: float | None = None
    checkpoint_steps: int = 25
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    image_column: str = "image"
    label_column: str = "label"

    def sequence(self, folder: str | Path) -> DiffusionSequence:
        """Load the model and what it learns from. Raises ValueError or OSError where they do not load or fit."""
        unknown = sorted(self.memory.keys() - {"samples", "seed"})
        if unknown:
            raise ValueError(f"memory has the unknown key {unknown[0]!r}, known are samples and seed")
        saves = {"save_strategy": "steps", "save_steps": self.checkpoint_steps, "save_total_limit": 1}
        config = UnlearnConfig.quiet(
            output_dir=str(folder),
            max_steps=self.steps,
            per_device_train_batch_size=self.batch_size,
            seed=self.seed,
            learning_rate=self.learning_rate,
            **(saves if self.checkpoint_steps else {}),
        )
        memory = ReplayMemory(**{"seed": self.seed, "samples": 192, **self.memory})
        strategy = strategy_of(self.method, **self.options)
        how = (self.match, self.hold, self.forget_pictures)
        return DiffusionSequence(self._painter(), config, memory, strategy, *how)

    def _painter(self) -> Painter:
        pipeline, _ = load_model(SHIPPED.get(self.model, self.model))
        family = prepare_family(pipeline).name
        if family == "text_to_image":
            return self._of_prompts(pipeline)
        if family != "ddpm":
            what = "an image classifier: name its tasks" if family == "classifier" else "a DiT pipeline"
            raise ValueError(f"{self.model} is {what}; without tasks it must be a UNet2D or text-to-image pipeline")
        if self.prompts or self.templates:
            raise ValueError(f"{self.model} draws classes: leave prompts and templates out")
        return ClassPainter(pipeline, self._images(pipeline), self.num_inference_steps or 50, self.guidance_scale)

    def _images(self, pipeline: Any) -> Any:
        if self.data is None or self.data == "digits":
            return None if self.data is None else digits()
        config = pipeline.unet.config
        return load_images(self.data, config.sample_size, config.in_channels, self.image_column, self.label_column)

    def _of_prompts(self, pipeline: Any) -> PromptPainter:
        if self.data is not None:
            raise ValueError("data is for models that draw classes: a learn request names its folder of images")
        emoji = self.model == "emoji_sd"
        every = [prompt_of(style, thing) for style in STYLES for thing in OBJECTS]
        prompts = self.prompts or (every if emoji else RETAIN_PROMPTS)
        templates = self.templates or ([prompt_of(style, "{}") for style in STYLES] if emoji else TEMPLATES)
        steps, guidance = (20, 3.0) if emoji else (30, denoiser_of(pipeline).guidance(pipeline))
        given = self.guidance_scale
        drawing = Drawing(
            self.num_inference_steps or steps, guidance if given is None else given, batch_size=24 if emoji else 4
        )
        return PromptPainter(pipeline, prompts, templates, drawing)
