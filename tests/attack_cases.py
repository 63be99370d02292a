"""A tiny Stable Diffusion, something to attack in it, and readers without a network."""

from dataclasses import dataclass, field

import torch
from conftest import same, tiny_sd

from hf_unlearn.attacks import Subject, Target
from hf_unlearn.families.latents import Drawing


@dataclass
class Brighter:
    """Says of an image whether its mean is above a threshold."""

    threshold: float = 0.0
    name: str = "the mean"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).mean(1) > self.threshold


@dataclass
class Never:
    """Says no."""

    name: str = "nobody"
    seen: list[torch.Tensor] = field(default_factory=list, repr=False)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return torch.zeros(len(images), dtype=torch.bool)


def changed_sd(make=tiny_sd):
    """Another model of the same build as `make()`, with its text encoder and VAE."""
    pipeline = make(seed=0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in pipeline.unet.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.05)
    return pipeline


def target(reader=None, name="a cat") -> Target:
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Target(name, (f"a photo of {name}", f"{name}, detailed"), images, reader or Brighter())


def subject(model, original, reader=None, samples=3, **values) -> Subject:
    drawing = Drawing(num_inference_steps=3, guidance_scale=2.0, batch_size=2)
    retained = target(name="a dog")
    return Subject(model, target(reader), original, retained, drawing, samples=samples, **values)


def state_of(pipeline) -> dict[str, torch.Tensor]:
    """All weights of the pipeline's networks."""
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    return {f"{n}.{k}": v.clone() for n, part in parts.items() for k, v in part.state_dict().items()}


def check_repeatable(attack, make=tiny_sd, **values) -> None:
    """The attack finds the same twice, has a budget, and leaves weights, modes and requires_grad as they were."""
    pipeline, original = make(seed=1), make(seed=0)
    pipeline.unet.train()
    before, scheduler = (state_of(pipeline), state_of(original)), pipeline.scheduler
    own = subject(pipeline, original, **{"reader": Brighter(), **values})
    assert attack.attack(own, 1) == attack.attack(own, 1)
    assert same(before[0], state_of(pipeline)) and same(before[1], state_of(original))
    assert pipeline.unet.training and all(p.requires_grad for p in pipeline.unet.parameters())
    assert pipeline.scheduler is scheduler and attack.budget
