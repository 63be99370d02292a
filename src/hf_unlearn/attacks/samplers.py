"""Samplers: the concept asked for as before, and drawn in another way."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from diffusers import AutoPipelineForImage2Image, schedulers
from torch import Tensor
from torch.nn.functional import interpolate
from typing_extensions import Self

from ..families import FlowSchedule, denoiser_of, side_of
from ..families.latents import Drawing
from ..methods.base import flag
from .base import Attack, Found, Subject, Suite
from .pictures import draw, drawing_of, shallow

# name -> scheduler of diffusers (None: the model's own), times the steps, times the guidance, what else.
SETTINGS: dict[str, tuple[str | None, float, float, str]] = {
    "ddim": ("DDIMScheduler", 1.0, 1.0, ""),
    "euler": ("EulerDiscreteScheduler", 1.0, 1.0, ""),
    "euler ancestral": ("EulerAncestralDiscreteScheduler", 1.0, 1.0, ""),
    "dpm++": ("DPMSolverMultistepScheduler", 1.0, 1.0, ""),
    "twice the steps": (None, 2.0, 1.0, ""),
    "half the steps": (None, 0.5, 1.0, ""),
    "twice the guidance": (None, 1.0, 2.0, ""),
    "no guidance": (None, 1.0, 0.0, ""),
    "negative prompt": (None, 1.0, 1.0, "negative"),
    "image to image": (None, 1.0, 1.0, "image"),
}


@dataclass(frozen=True)
class Samplers(Attack):
    """Draw by other samplers, in other numbers of steps, at other guidance, against a negative prompt, from images.

    The negative prompt is the target's `neutral`, or a retained prompt where that is empty. Images to start from are
    those of the retained concepts.
    """

    name: ClassVar[str] = "samplers"
    suite: ClassVar[Suite] = "quick"
    families: ClassVar[tuple[str, ...]] = ("text_to_image",)
    limits: ClassVar[dict[str, str]] = {"strength": "(0, 1]"}

    settings_drawn: tuple[str, ...] = flag(tuple(SETTINGS), "Names of the settings, each for a part of the images.")
    strength: float = flag(0.8, "Share of the chain that image to image runs through.")

    def __post_init__(self) -> None:
        super().__post_init__()
        lost = [name for name in self.settings_drawn if name not in SETTINGS]
        if lost or not self.settings_drawn:
            raise ValueError(f"settings_drawn must be among {', '.join(SETTINGS)}, got {lost or 'none'}")

    @property
    def budget(self) -> str:
        return f"{len(self.settings_drawn)} ways to sample; nothing is learnt"

    def quick(self) -> Self:
        kept = tuple(name for name in self.settings_drawn if SETTINGS[name][1] <= 1)  # none that takes more steps
        return replace(self, settings_drawn=kept or self.settings_drawn)

    def fitting(self, model: Any) -> tuple[str, ...]:
        """The settings that a pipeline can be drawn from by.

        Flow matching has its own scheduler alone; negative prompts and starts from images are those of Stable
        Diffusion's pipelines.
        """
        own, plain = FlowSchedule.fits(model.scheduler), not denoiser_of(model).vectors
        kept = [n for n in self.settings_drawn if not (own and SETTINGS[n][0]) and not (plain and SETTINGS[n][3])]
        return tuple(kept)

    def unfit(self, model: Any) -> str:
        return "" if self.fitting(model) else f"no setting of settings_drawn is for a {type(model).__name__}"

    def attack(self, subject: Subject, seed: int) -> Found:
        shares: dict[str, float] = {}
        every: list[bool] = []
        fitting = self.fitting(subject.model)
        for k, name in enumerate(fitting):
            prompts = [str(prompt) for prompt in subject.asked[k :: len(fitting)]]
            if prompts:
                read = subject.read(self._draw(subject, name, prompts, seed, first=len(every)))
                shares[name] = sum(read) / len(read)
                every += read
        return Found(tuple(every), details={"shares": shares})

    def _draw(self, subject: Subject, name: str, prompts: list[str], seed: int, first: int) -> Tensor:
        scheduler, steps, guidance, special = SETTINGS[name]
        drawing = drawing_of(subject)
        drawing = replace(
            drawing,
            num_inference_steps=max(1, round(drawing.num_inference_steps * steps)),
            guidance_scale=max(1.0, drawing.guidance_scale * guidance),
        )
        pipeline = subject.model
        given: Callable[[slice, list[str]], dict[str, Any]] = _plain
        if scheduler is not None:
            pipeline = shallow(pipeline, scheduler=scheduler_like(pipeline, scheduler))
        if special == "negative":
            text = self._negative(subject)
            given = partial(_against, text)
        elif special == "image":
            pipeline, given = image_to_image(pipeline), self._start(subject, drawing)
        return draw(
            pipeline,
            drawing,
            seed,
            len(prompts),
            lambda rows: {"prompt": prompts[rows], **given(rows, prompts[rows])},
            first,
        )

    def _negative(self, subject: Subject) -> str:
        kept = subject.retained.asked if subject.retained is not None else ()
        texts = [str(text) for text in (subject.target.neutral, *kept) if str(text)]
        if not texts:
            raise ValueError("a negative prompt is needed: give `neutral`, or retained prompts, or leave it out")
        return texts[0]

    def _start(self, subject: Subject, drawing: Drawing) -> Callable[[slice, list[str]], dict[str, Any]]:
        """What image to image starts from, for a slice of the images."""
        if subject.retained is None or not len(subject.retained.images):
            raise ValueError("image to image starts from retained images: give `retained`, or leave it out")
        size = side_of(subject.model, drawing.resolution)
        images = (interpolate(subject.retained.images, (size, size), mode="bilinear") + 1) / 2

        def given(rows: slice, own: list[str]) -> dict[str, Any]:
            numbers = torch.arange(rows.start, rows.stop) % len(images)
            start = images[numbers].to(subject.model.device)
            return {"image": start, "strength": self.strength, "height": None, "width": None}

        return given


def _against(text: str, rows: slice, own: list[str]) -> dict[str, Any]:
    return {"negative_prompt": [text] * len(own)}


def _plain(rows: slice, own: list[str]) -> dict[str, Any]:
    return {}


def image_to_image(pipeline: Any) -> Any:
    """The pipeline of the same parts that starts from images."""
    return AutoPipelineForImage2Image.from_pipe(pipeline)


def scheduler_like(pipeline: Any, name: str) -> Any:
    """A scheduler of diffusers by the name of its class, with the pipeline's noise schedule and prediction."""
    return getattr(schedulers, name).from_config(pipeline.scheduler.config)
