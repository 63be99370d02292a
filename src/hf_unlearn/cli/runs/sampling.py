"""What the evaluation of a diffusion model of images will sample, settled before anything is trained."""

import copy
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from ...common.errors import spare_memory
from ...common.processes import say
from ...evaluation import SamplingConfig
from ...evaluation.generation import sample_classes, sample_unconditional
from ...evaluation.metric import FEWEST


def usable_guidance(wanted: float, why_not: str) -> float:
    """Return the guidance scale to sample with: `wanted`, or 1 with a line that says so and why.

    Args:
        why_not: why the model cannot be guided; "" if it can.
    """
    if not why_not or wanted == 1.0:
        return wanted
    say(f"samples are generated with guidance scale 1 instead of {wanted:g}: {why_not}")
    return 1.0


def class_draws(
    flags: Any, data: Any, classified: bool, steps: int, classes: Collection[int] | None = None
) -> list[str]:
    """Return the line of the plan on the images that a class-conditional model generates.

    Args:
        flags, data: `SampleFlags` and `ImageDataFlags`.
        classified: whether a classifier recognises them.
        steps: sampling steps of an image.
        classes: those that are generated, where they are known; else the flags say.
    """
    if not classified or not flags.eval_samples_per_class:
        return [
            f"none as data; to show, a few with each model in {steps} sampling steps, and nothing is measured on them"
        ]
    if classes is not None:
        count = f"{len(classes)} classes"
    elif flags.eval_classes:
        count = f"{len({*flags.eval_classes, *(data.forget_class or [])})} classes"
    else:
        count = "the forgotten and up to nine other classes"
    each = flags.eval_samples_per_class
    return [f"none as data; to measure, {each} of each of {count} with each model, in {steps} sampling steps"]


def say_few(samples: int, flag: str) -> None:
    """Print a line if fewer samples of what is forgotten are measured than a conclusion needs.

    Args:
        flag: the flag that asks for more.
    """
    if samples < FEWEST:
        say(f"{samples} forgotten samples are measured, fewer than {FEWEST}, which say too little: raise {flag}")


def check_sampling(pipeline: Any, config: SamplingConfig, classes: list[int] | None) -> None:
    """Take the first two of the steps in which the evaluation will generate an image.

    What the pipeline, its scheduler or its network cannot do is found here and not after the training.

    Args:
        classes: a class to ask for; None for a model without classes.

    Raises:
        ValueError: nothing can be sampled; it says what failed.
        OutOfMemory: one image does not fit.
    """
    trial = copy.copy(pipeline)
    trial.scheduler = _first_steps(copy.deepcopy(pipeline.scheduler))
    one = replace(config, samples_per_class=1, batch_size=1)
    with spare_memory("while sampling one image"):
        try:
            images = sample_unconditional(trial, 1, one) if classes is None else sample_classes(trial, classes, one)
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:
            if "memory" in str(error).lower():
                raise
            said = " ".join(str(error).split())[:300]
            raise ValueError(
                f"the model generates no image, which the evaluation needs ({type(error).__name__}: {said}): set "
                "num_inference_steps and guidance_scale to what its scheduler takes, or mend its configuration"
            ) from error
    if not images.isfinite().all():
        raise ValueError("the model generates images that are not finite: load whole weights, in float32 or bfloat16")


def _first_steps(scheduler: Any, count: int = 2) -> Any:
    """Have a scheduler stop after `count` of its steps."""
    whole = scheduler.set_timesteps

    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        whole(*args, **kwargs)
        scheduler.timesteps = scheduler.timesteps[:count]

    scheduler.set_timesteps = set_timesteps
    return scheduler
