"""Ask for the forgotten class in other ways than it was evaluated: guidance, number of steps, sampler."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..evaluation.other_sampler import other_scheduler
from ..methods.base import flag
from .base import Attack, Found, Subject, Suite
from .classes import FAMILIES, can_guide, sampled, sampling_of, working_copy
from .pictures import shallow


@dataclass(frozen=True)
class ClassGuidance(Attack):
    """Sample the class under each guidance scale, each number of steps and another sampler (DDPM for DDIM).

    The images of a seed are spread over these ways. A pipeline that cannot guide is asked at guidance 1 only.
    """

    name: ClassVar[str] = "class_guidance"
    suite: ClassVar[Suite] = "quick"
    families: ClassVar[tuple[str, ...]] = FAMILIES

    guidance_scales: tuple[float, ...] = flag((1.0, 2.0, 3.0), "Values of w in null + w (class - null).")
    steps: tuple[int, ...] = flag((25, 100), "Numbers of steps of the model's own sampler.")
    other_steps: tuple[int, ...] = flag((25, 100), "Numbers of steps of the other sampler.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.guidance_scales or self.steps or self.other_steps):
            raise ValueError("no way to ask: give guidance_scales, steps or other_steps")
        if min((*self.guidance_scales, *self.steps, *self.other_steps)) <= 0:
            raise ValueError("guidance scales and numbers of steps must be above 0")

    @property
    def budget(self) -> str:
        return "no training: other guidance scales, numbers of steps and another sampler"

    def attack(self, subject: Subject, seed: int) -> Found:
        objective = working_copy(subject)
        ways = self.ways(objective.pipeline, subject, can_guide(objective))
        recovered: list[bool] = []
        shares = {}
        for number, (name, (scheduler, changes)) in enumerate(ways.items()):
            samples = subject.samples // len(ways) + (number < subject.samples % len(ways))
            if samples == 0:
                continue
            pipeline = shallow(objective.pipeline, scheduler=scheduler)
            with torch.no_grad():
                read = subject.read(sampled(pipeline, subject, seed, samples_per_class=samples, **changes))
            recovered += read
            shares[name] = sum(read) / samples
        return Found(tuple(recovered), details={"shares": shares})

    def ways(self, pipeline: Any, subject: Subject, guided: bool) -> dict[str, tuple[Any, dict[str, Any]]]:
        """By name the scheduler and the changes to the subject's sampling; what the model cannot do is left out."""
        config, own = sampling_of(subject), pipeline.scheduler
        longest = own.config["num_train_timesteps"]
        other_name, other = other_scheduler(own)
        scales = [w for w in self.guidance_scales if w != config.guidance_scale and (guided or w == 1)]
        found: dict[str, tuple[Any, dict[str, Any]]] = {
            f"guidance {w:g}": (own, {"guidance_scale": w}) for w in scales
        }
        for title, scheduler, steps in (("own sampler", own, self.steps), (other_name, other, self.other_steps)):
            for count in dict.fromkeys(min(s, longest) for s in steps):
                if scheduler is not own or count != config.num_inference_steps:
                    found[f"{title}, {count} steps"] = (scheduler, {"num_inference_steps": count})
        if not found:
            raise ValueError("every way to ask is the one of the subject's sampling: give other scales or steps")
        return found
