"""A class-conditional model read under another sampler than its own, on fewer samples.

A model can look whole under one sampler and be damaged under another: DDPM adds fresh noise at every step, which mends
small errors that DDIM carries to the end.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler

from .generation import SamplingConfig
from .metric import Metric, version_of
from .protocols import SampleClassifier

STEPS = 25
WORDS = {"forget": "forgotten", "retain": "retained"}
FORGOTTEN, RETAINED = 30, 45  # samples of all forgotten, and of all retained classes, at least


def other_scheduler(scheduler: Any) -> tuple[str, Any]:
    """Return ("ddpm", a DDPMScheduler) for a DDIMScheduler, and ("ddim", a DDIMScheduler) for any other.

    It has the noise schedule, the kind of prediction and the spacing of timesteps of `scheduler`.
    """
    # diffusers takes arguments that were given by position for defaults, and drops them under this key.
    settings = {name: value for name, value in scheduler.config.items() if name != "_use_default_values"}
    if isinstance(scheduler, DDIMScheduler):
        return "ddpm", DDPMScheduler.from_config(settings)
    return "ddim", DDIMScheduler.from_config(settings)


@torch.no_grad()
def sampled_otherwise(
    pipeline: Any,
    judge: SampleClassifier,
    forget_classes: Sequence[int],
    classes: Sequence[int],
    config: SamplingConfig,
) -> dict[str, Metric]:
    """Return forget_accuracy and retain_accuracy under another sampler, whose name ends theirs.

    Args:
        judge: the classifier that recognises the samples.
        classes: the classes that are generated, the forgotten ones among them.
        config: guidance, seed, and the most samples of a class. The noise of a sample is the same for every model.
    """
    name, scheduler = other_scheduler(pipeline.scheduler)
    other = copy.copy(pipeline)
    other.scheduler = scheduler
    other.set_progress_bar_config(disable=True)
    parts = {"forget": list(forget_classes), "retain": [c for c in classes if c not in forget_classes]}
    steps = min(STEPS, scheduler.config["num_train_timesteps"])
    found = {}
    for part, least in (("forget", FORGOTTEN), ("retain", RETAINED)):
        each = min(config.samples_per_class, -(-least // len(parts[part])))
        asked = torch.tensor(parts[part]).repeat_interleave(each)
        generator = torch.Generator().manual_seed(config.seed)
        correct = []
        for labels in asked.split(config.batch_size):
            images = other(
                labels.tolist(),
                guidance_scale=config.guidance_scale,
                num_inference_steps=steps,
                generator=generator,
                output_type="pt",
            ).images
            correct.append(judge(images.float().cpu() * 2 - 1).argmax(1).cpu() == labels)
        found[f"{part}_accuracy_{name}"] = Metric(
            torch.cat(correct).double().mean().item(),
            f"share of samples, asked for as a {WORDS[part]} class, that the "
            f"judge reads as it; by {name.upper()} with {steps} steps",
            len(asked),
            version_of("torch", "diffusers"),
            {"scheduler": type(scheduler).__name__, "num_inference_steps": steps, "seed": config.seed},
        )
    return found
