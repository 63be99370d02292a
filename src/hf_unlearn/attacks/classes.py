"""What attacks on class-conditional and unconditional models share: a working copy, samples, batches."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..evaluation.class_pictures import frozen_copy
from ..evaluation.generation import SamplingConfig, sample_classes, sample_unconditional
from ..families.denoising import Denoising
from ..families.load import objective_for
from .base import Subject
from .pictures import latents_of_images

FAMILIES = ("ddpm", "dit")


def working_copy(subject: Subject) -> Denoising:
    """An objective around a frozen copy of the model in eval mode, which may be changed; the model stays as it is."""
    objective: Any = objective_for(frozen_copy(subject.model))
    objective.eval()
    return objective.to(subject.model.device)


def sampling_of(subject: Subject) -> SamplingConfig:
    """How the subject is sampled. Raises ValueError where that is not said."""
    if not isinstance(subject.sampling, SamplingConfig):
        raise ValueError("a class-conditional model is sampled as a SamplingConfig says: give one as `sampling`")
    return subject.sampling


def one_class(subject: Subject) -> int:
    """The class that is attacked. Raises ValueError unless there is exactly one."""
    labels = set(subject.target.asked)
    if len(labels) != 1:
        raise ValueError(f"the attack is on one class, and {len(labels)} are asked for: give a target for each class")
    return int(labels.pop())


def counts(subject: Subject, labels: Sequence[int], samples: int) -> dict[int, int]:
    """How many of `samples` images fall on each label, as evenly as it goes. Raises ValueError without a label."""
    if not labels:
        raise ValueError(f"no class is asked for in {subject.target.name!r}: give class numbers as `asked`")
    turns = [labels[i % len(labels)] for i in range(samples)]
    return {int(label): turns.count(label) for label in dict.fromkeys(turns)}


def sampled(pipeline: Any, subject: Subject, seed: int, labels: Sequence[int] | None = None, **changes: Any) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] on the CPU, with noise that the seed decides.

    Args:
        labels: the classes in turn, by default those asked for. A model without classes is sampled as it is.
        changes: fields of the SamplingConfig; `samples_per_class` is the number of all images.
    """
    config = replace(sampling_of(subject), **{"samples_per_class": subject.samples, "seed": seed, **changes})
    if not objective_for_classes(pipeline):
        return sample_unconditional(pipeline, config.samples_per_class, config)
    each = counts(subject, list(labels or subject.target.asked), config.samples_per_class)
    drawn = [sample_classes(pipeline, [c], replace(config, samples_per_class=n)) for c, n in each.items()]
    return torch.cat(drawn)


def objective_for_classes(pipeline: Any) -> bool:
    """Whether a pipeline is asked for classes."""
    unet = getattr(pipeline, "unet", None)
    return unet is None or bool(unet.config.num_class_embeds)


def can_guide(objective: Denoising) -> bool:
    """Whether the pipeline samples with guidance: DiTPipeline takes 1000 for the null class, whatever the model."""
    guided = objective.null_class is not None
    return guided and (hasattr(objective.pipeline, "null_class") or objective.null_class == 1000)


def pictures(objective: Denoising, images: Tensor, count: int) -> Tensor:
    """The first `count` images as the network takes them: pixels, or latents of a model with a VAE.

    Raises:
        ValueError: there are fewer.
    """
    if len(images) < count:
        raise ValueError(f"the attack takes {count} pictures of the target, and there are {len(images)}: give more")
    encoded = getattr(objective.pipeline, "vae", None) is not None
    return latents_of_images(objective.pipeline, images[:count]) if encoded else images[:count]


class Batches:
    """Batches of a few pictures for the denoising loss: pictures with replacement, timesteps and noise, by one seed.

    Args:
        images: (K, C, H, W) as the network takes them.
        label: of all of them; None for a model without classes.
    """

    def __init__(self, objective: Denoising, images: Tensor, label: int | None, batch_size: int, seed: int):
        self.objective, self.images, self.label, self.batch_size = objective, images.cpu(), label, batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def loss(self) -> Tensor:
        """The mean loss of the next batch; no label is dropped."""
        chosen = torch.randint(len(self.images), (self.batch_size,), generator=self.generator)
        batch = {"pixel_values": self.images[chosen]}
        draws = self.objective.draw(batch, self.generator)
        batch |= {"noise": draws["noise"], "timesteps": draws["timesteps"]}
        if self.label is not None:
            batch["labels"] = torch.full((self.batch_size,), self.label)
        device = next(self.objective.network.parameters()).device
        return self.objective(**{name: value.to(device) for name, value in batch.items()}).mean()
