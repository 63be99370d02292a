"""Variants of images by a generator: noise to a share of its chain, then denoise under the image's class.

SDEdit (Meng et al. 2021, arXiv 2108.01073) with a class, as TADA makes its images (arXiv 2505.21574): about half of
the chain keeps what is in the picture and changes how it looks. A pipeline that takes classes runs the chain here; one
that takes texts runs through diffusers' own image-to-image pipeline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ..common.limits import check_limits
from ..families import objective_for, side_of
from ..families.ddpm.pipeline import GUIDANCE, step_arguments
from ..families.denoising import Denoising, sides_of
from ..families.latents import identity_of_pipeline
from ..families.text_to_image.objective import PIPELINES
from ..families.vae import decoded, posterior_mean, side_factor

PROMPT = "a photo of a {}"


@dataclass(frozen=True)
class Variation:
    """How variants are drawn.

    Args:
        num_inference_steps: Steps of the whole chain; a variant of strength s takes the last s of them.
        guidance_scale: Of classifier-free guidance; by default 1.5 for a pipeline that takes classes and has a null
            class, 3 for one that takes texts (the paper's).
        prompt: What a pipeline that takes texts is told; {} stands for the class's name.
        width: Images in every call of the network. A shorter batch is filled up to it, because a network's last bits
            depend on the number of images beside: so an image comes out the same, whichever others are asked for.
    """

    num_inference_steps: int = 50
    guidance_scale: float | None = None
    prompt: str = PROMPT
    width: int = 16

    def __post_init__(self) -> None:
        check_limits(self, num_inference_steps="[1, inf)", guidance_scale="[0, inf)", width="[1, inf)")
        if "{}" not in self.prompt:
            raise ValueError(f"prompt {self.prompt!r} does not say where the class's name goes: write {{}} there")

    def steps_of(self, strength: float) -> int:
        """Return how many steps of the chain a strength takes, as diffusers counts them. 0 for one that takes none."""
        return min(int(self.num_inference_steps * strength), self.num_inference_steps)


class Generator:
    """A pipeline that draws variants; a base class for those that take classes and those that take texts.

    Attributes:
        size: (height, width) in pixels. channels: of its images.
    """

    size: tuple[int, int]
    channels: int

    def __init__(self, pipeline: Any, variation: Variation | None = None, name: str = ""):
        self.pipeline, self.variation = pipeline, variation or Variation()
        self.name = name or str(pipeline.config.get("_name_or_path") or type(pipeline).__name__)
        pipeline.set_progress_bar_config(disable=True)

    @property
    def identity(self) -> dict[str, Any]:
        """What the pipeline draws with, for the key of a cache."""
        return identity_of_pipeline(self.pipeline)

    def conditions(self, names: Mapping[int, str]) -> dict[int, Any]:
        """What the pipeline is told for each class of the data, by the data's number.

        Args:
            names: The names of the data's classes by number.

        Raises:
            ValueError: the pipeline draws other classes.
        """
        raise NotImplementedError

    def vary(self, images: Tensor, conditions: Sequence[Any], seeds: Sequence[int], strength: float) -> Tensor:
        """Draw one variant of each image, (B, C, H, W) in [-1, 1] on the CPU, as the images are.

        Variant i depends on image i, its condition, its seed and the strength alone.

        Args:
            images: Of the pipeline's size and channels.
            conditions: As `conditions` gives them.
            strength: In (0, 1], the share of the chain; at 1 nothing is left of the image.
        """
        if not self.variation.steps_of(strength):
            raise ValueError(
                f"strength {strength} of {self.variation.num_inference_steps} steps is no step: raise one of them"
            )
        drawn, width = [], self.variation.width
        for start in range(0, len(images), width):
            count = min(width, len(images) - start)
            rows = [start + min(k, count - 1) for k in range(width)]
            made = self._vary(images[rows], [conditions[i] for i in rows], [seeds[i] for i in rows], strength)
            drawn.append(made[:count].float().cpu())
        return torch.cat(drawn)

    def _vary(self, images: Tensor, conditions: list[Any], seeds: list[int], strength: float) -> Tensor:
        """`vary` of exactly `width` images, on any device and in any precision."""
        raise NotImplementedError


class ClassGenerator(Generator):
    """A class-conditional DDPM, on pixels, or a DiT, on latents."""

    def __init__(self, pipeline: Any, variation: Variation | None = None, name: str = ""):
        super().__init__(pipeline, variation, name)
        self.objective: Denoising = objective_for(pipeline)  # type: ignore[assignment]  # of these two families
        self.vae: Any = getattr(pipeline, "vae", None)
        config = self.objective.network.config
        height, width = sides_of(config.sample_size)
        scale = 1 if self.vae is None else side_factor(self.vae)
        self.size = height * scale, width * scale
        self.channels = config.in_channels if self.vae is None else self.vae.config.in_channels
        scheduler = pipeline.scheduler
        if not hasattr(scheduler, "add_noise"):
            raise ValueError(f"the {type(scheduler).__name__} of {self.name} adds no noise: give it a DDIMScheduler")

    def conditions(self, names: Mapping[int, str]) -> dict[int, int]:
        named = getattr(self.pipeline, "labels", None) or {}
        own = self.objective.class_labels
        if named and all(name in named for name in names.values()):
            return {number: named[name] for number, name in names.items()}
        lost = sorted(set(names) - set(own))
        if lost or len(own) != len(names):
            raise ValueError(
                f"the generator {self.name} draws {len(own)} classes and the data has {len(names)}: "
                "name one that was trained on the data's classes"
            )
        return {number: number for number in names}

    @torch.no_grad()
    def _vary(self, images: Tensor, conditions: list[int], seeds: list[int], strength: float) -> Tensor:
        network, scheduler = self.objective.network.eval(), self.pipeline.scheduler
        device, dtype = next(network.parameters()).device, self.objective.dtype
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        x = images.to(device, dtype)
        if self.vae is not None:
            x = posterior_mean(self.vae.to(device), x.to(self.vae.dtype)).to(dtype)
        noise = randn_tensor(x.shape, generator=generators, device=device, dtype=dtype)
        labels = torch.tensor(conditions, device=device)
        null, guidance = self.objective.null_class, self._guidance
        scheduler.set_timesteps(self.variation.num_inference_steps, device=device)
        taken = self.variation.steps_of(strength) * scheduler.order
        steps = scheduler.timesteps[-taken:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(len(scheduler.timesteps) - len(steps))
        x = scheduler.add_noise(x, noise, steps[:1].expand(len(x)))
        extra = step_arguments(scheduler, generators, 0.0)
        for t in steps:
            given = scheduler.scale_model_input(x, t)
            now = t.expand(len(x))
            predicted = self.objective.denoise(network, given, now, labels)
            if guidance != 1 and null is not None:
                plain = self.objective.denoise(network, given, now, torch.full_like(labels, null))
                predicted = plain + guidance * (predicted - plain)
            x = scheduler.step(predicted, t, x, **extra).prev_sample
        return x if self.vae is None else decoded(self.vae, x)

    @property
    def _guidance(self) -> float:
        given = self.variation.guidance_scale
        if given is None:
            return 1.0 if self.objective.null_class is None else GUIDANCE
        if given != 1 and self.objective.null_class is None:
            raise ValueError(f"{self.name} has no null class, so guidance is not possible: set guidance_scale=1")
        return given


class TextGenerator(Generator):
    """A Stable Diffusion pipeline, through diffusers' image-to-image pipeline of the same parts."""

    def __init__(self, pipeline: Any, variation: Variation | None = None, name: str = ""):
        super().__init__(pipeline, variation, name)
        from diffusers import AutoPipelineForImage2Image

        self.image_to_image: Any = AutoPipelineForImage2Image.from_pipe(pipeline)
        self.image_to_image.set_progress_bar_config(disable=True)
        side = side_of(pipeline, None)
        self.size, self.channels = (side, side), 3

    def conditions(self, names: Mapping[int, str]) -> dict[int, str]:
        return {number: self.variation.prompt.format(name) for number, name in names.items()}

    @torch.no_grad()
    def _vary(self, images: Tensor, conditions: list[str], seeds: list[int], strength: float) -> Tensor:
        given = self.variation.guidance_scale
        made = self.image_to_image(
            prompt=conditions,
            image=(images + 1) / 2,
            strength=strength,
            num_inference_steps=self.variation.num_inference_steps,
            guidance_scale=3.0 if given is None else given,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
        ).images
        return made * 2 - 1


def generator_of(pipeline: Any, variation: Variation | None = None, name: str = "") -> Generator:
    """Return the generator around a pipeline.

    Raises:
        ValueError: it is no class-conditional UNet2D pipeline, no DiTPipeline and no Stable Diffusion pipeline.
    """
    if type(pipeline).__name__ in PIPELINES:
        return TextGenerator(pipeline, variation, name)
    objective = objective_for(pipeline)
    if not isinstance(objective, Denoising) or not objective.conditional:
        raise ValueError(
            f"{name or type(pipeline).__name__} draws no classes, so a variant could be of any: give a "
            "class-conditional UNet2D or DiT pipeline, or Stable Diffusion"
        )
    return ClassGenerator(pipeline, variation, name)
