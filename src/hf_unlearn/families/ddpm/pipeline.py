"""A DDPM pipeline with class labels and classifier-free guidance, which diffusers' DDPMPipeline lacks.

The saved folder is plain diffusers: `UNet2DModel.from_pretrained(folder, subfolder="unet")` and the scheduler load
without this package. Loading it as a whole needs this class, because model_index.json names it.
"""

from typing import Any

import torch
from diffusers import SchedulerMixin, UNet2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor

from ...common.untrusted import check_filled, loading, pipeline_index

GUIDANCE = 1.5  # default guidance scale of a model with a null class


class ClassConditionalDDPMPipeline(DiffusionPipeline):
    """Samples images of given classes from a class-embedding UNet2DModel.

    Args:
        unet: embeds `num_class_embeds` classes.
        scheduler: any diffusers scheduler whose step takes noise, v or sample predictions (DDPM, DDIM, ...).
        null_class: the class embedding that means "no class"; None if the model has none (then no guidance).
    """

    model_cpu_offload_seq = "unet"  # type: ignore[assignment]
    unet: Any
    scheduler: Any

    def __init__(self, unet: Any, scheduler: SchedulerMixin, null_class: int | None = None):
        super().__init__()
        if not unet.config.num_class_embeds:
            raise ValueError("the UNet has no class embeddings (num_class_embeds): use diffusers' DDPMPipeline")
        self.register_modules(unet=unet, scheduler=scheduler)
        set_null_class(self, null_class)

    @property
    def null_class(self) -> int | None:
        return self.config["null_class"]

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | list[int] | torch.Tensor,
        guidance_scale: float | None = None,
        num_inference_steps: int = 50,
        generator: torch.Generator | list[torch.Generator] | None = None,
        eta: float = 0.0,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """One image per label.

        Args:
            guidance_scale: w in ε_null + w (ε_class - ε_null) (arXiv 2207.12598); 1 is no guidance and one forward
                per step instead of two. The default is 1.5, or 1 for a model without a null class.
            eta: stochasticity of DDIM; schedulers that do not take it never see it.
            output_type: "pil", "np" (B, H, W, C in [0, 1]) or "pt" (B, C, H, W in [0, 1]).

        Raises:
            ValueError: a label that the model does not embed, or guidance without a null class.
        """
        device = self._execution_device
        labels = torch.atleast_1d(torch.as_tensor(class_labels)).to(device)
        embedded = self.unet.config.num_class_embeds
        if labels.min() < 0 or labels.max() >= embedded:
            raise ValueError(
                f"class_labels must lie in 0..{embedded - 1}, got {int(labels.min())}..{int(labels.max())}"
            )
        if guidance_scale is None:
            guidance_scale = GUIDANCE if self.null_class is not None else 1.0
        guided = guidance_scale != 1.0
        if guided and self.null_class is None:
            raise ValueError("the model has no null class, so guidance is not possible: set guidance_scale=1")
        size = self.unet.config.sample_size
        size = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
        shape = (len(labels), self.unet.config.in_channels, *size)
        images = randn_tensor(shape, generator=generator, device=device, dtype=self.unet.dtype)

        self.scheduler.set_timesteps(num_inference_steps, device=device)
        images = images * self.scheduler.init_noise_sigma
        extra = step_arguments(self.scheduler, generator, eta)
        both = labels if not guided else torch.cat([labels, torch.full_like(labels, self.null_class or 0)])
        for t in self.progress_bar(self.scheduler.timesteps):
            inputs = self.scheduler.scale_model_input(torch.cat([images, images]) if guided else images, t)
            prediction = self.unet(inputs, t, class_labels=both).sample
            if guided:
                conditional, null = prediction.chunk(2)
                prediction = null + guidance_scale * (conditional - null)
            images = self.scheduler.step(prediction, t, images, **extra).prev_sample

        images = (images / 2 + 0.5).clamp(0, 1)
        if output_type != "pt":
            images = images.cpu().permute(0, 2, 3, 1).float().numpy()
            if output_type == "pil":
                images = self.numpy_to_pil(images)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)


def step_arguments(scheduler: Any, generator: Any, eta: float) -> dict[str, Any]:
    """The arguments that a scheduler's `step` knows (as diffusers' own pipelines look them up)."""
    import inspect

    known = inspect.signature(scheduler.step).parameters
    return {k: v for k, v in {"generator": generator, "eta": eta}.items() if k in known}


def set_null_class(pipeline: Any, null_class: int | None) -> None:
    """Have a UNet2D pipeline sample with this null class, and write it into model_index.json when it is saved.

    Raises:
        ValueError: the UNet embeds no such class.
    """
    if null_class is not None:
        check_null_class(null_class, pipeline.unet.config.num_class_embeds)
    pipeline.register_to_config(null_class=null_class)


def check_null_class(null_class: int, embedded: int | None) -> None:
    """Raise ValueError unless `null_class` is one of a model's `embedded` classes."""
    if not embedded:
        raise ValueError(f"null_class {null_class} is for models with classes, and this one embeds none: leave it out")
    if not 0 <= null_class < embedded:
        raise ValueError(
            f"null_class {null_class} is not one of the model's {embedded} class embeddings: it must lie in "
            f"0..{embedded - 1}"
        )


def check_unet(config: Any) -> None:
    """Raise ValueError if the losses and the samplers of this package do not fit a UNet2DModel of this configuration:
    its condition is no class number, or it predicts more than the noise."""
    kind = config.get("class_embed_type")
    if kind is not None:
        raise ValueError(
            f"the UNet has class_embed_type {kind!r}, whose condition is no class number: give a UNet2DModel with "
            "num_class_embeds, or one without classes"
        )
    taken, given = config.get("in_channels"), config.get("out_channels")
    if taken != given:
        raise ValueError(
            f"the UNet takes {taken} channels and gives {given}: give one that predicts noise, v or the image alone, "
            "without a learned variance or a concatenated condition"
        )


def load_ddpm_pipeline(folder: str, **kwargs: Any) -> DiffusionPipeline:
    """A UNet2D pipeline from a folder or Hub id: class-conditional if its UNet embeds classes, else DDPMPipeline.

    Raises:
        ValueError: the folder is not a UNet2D pipeline.
    """
    from diffusers import DDPMPipeline

    index = pipeline_index(folder, **kwargs)
    if list(index.get("unet", []))[1:] != ["UNet2DModel"]:
        raise ValueError(f"{folder} is a {index.get('_class_name')}, not a pipeline around a UNet2DModel")
    with loading(folder):
        unet = UNet2DModel.load_config(folder, subfolder="unet", revision=kwargs.get("revision"))
    check_unet(unet)
    null_class = index.get("null_class")
    if null_class is not None:
        check_null_class(null_class, unet.get("num_class_embeds"))
    with loading(folder):
        cls = ClassConditionalDDPMPipeline if unet.get("num_class_embeds") else DDPMPipeline
        pipeline = cls.from_pretrained(folder, use_safetensors=True, **kwargs)
    check_filled(pipeline, folder)
    if not pipeline.unet.config.sample_size:
        raise ValueError(f"the UNet of {folder} does not say its sample_size: write it into unet/config.json")
    return pipeline
