"""Tiny class-conditional models under attack, and a judge without a network."""

import torch
from conftest import tiny_dit, tiny_pipeline

from hf_unlearn.attacks import Subject, Target
from hf_unlearn.attacks.readers import ClassifierReader
from hf_unlearn.evaluation import SamplingConfig


class Bands(torch.nn.Module):
    """Tells four classes apart by the mean of an image: the nearest of -0.6, -0.2, 0.2 and 0.6."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        centres = torch.tensor([-0.6, -0.2, 0.2, 0.6])
        return -((images.flatten(1).mean(1)[:, None] - centres) ** 2)


def target(label: int = 1, channels: int = 1, asked=None, network=None) -> Target:
    images = torch.rand(6, channels, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    reader = ClassifierReader(network or Bands(), label, name="the bands")
    return Target(f"class {label}", (label,) if asked is None else asked, images, reader)


def subject(model=None, samples: int = 5, guidance_scale: float = 1.5, **values) -> Subject:
    config = SamplingConfig(num_inference_steps=3, guidance_scale=guidance_scale, batch_size=4)
    return Subject(model or tiny_pipeline(), values.pop("given", target()), sampling=config, samples=samples, **values)


def dit_subject(seed: int = 0, **values) -> Subject:
    return subject(tiny_dit(seed), guidance_scale=1.0, given=target(channels=3), **values)


def state(model) -> dict[str, torch.Tensor]:
    network = getattr(model, "unet", None) or model.transformer
    return {name: value.clone() for name, value in network.state_dict().items()}
