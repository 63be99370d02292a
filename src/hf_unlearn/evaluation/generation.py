"""Metrics of class-conditional generators: accuracy of the samples by class, and a Frechet distance."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..common.bars import bar
from .metric import Metric, version_of
from .protocols import FeatureNetwork, SampleClassifier


@dataclass
class SamplingConfig:
    """How samples are generated. Every metric that uses them records it."""

    samples_per_class: int = 500
    guidance_scale: float = 1.5
    num_inference_steps: int = 10
    seed: int = 0
    batch_size: int = 100


@dataclass
class GenerationFigures:
    """A classifier's accuracies on samples, and a Frechet distance of the retained samples to real retained images.

    Attributes:
        forget_accuracy: mean of `per_class` over the forgotten classes.
        retain_accuracy: mean of `per_class` over the other classes.
        frechet_distance: in the classifier's feature space, so not comparable to any FID.
        per_class: for each class, the share of its samples that the classifier recognises.
        sampling: how the samples were generated.
        forgotten: the forgotten classes.
        other_sampler: what `sampled_otherwise` measured, if it was asked.
    """

    forget_accuracy: float
    retain_accuracy: float
    frechet_distance: float
    per_class: dict[int, float]
    sampling: dict[str, Any] = field(default_factory=dict)
    forgotten: list[int] = field(default_factory=list)
    other_sampler: dict[str, Metric] = field(default_factory=dict)

    def metrics(self) -> dict[str, Metric]:
        """Return the three metrics, each with its definition, and those of another sampler.

        Where the samples are not counted in `sampling`, theirs is 0.
        """
        each, forgotten = self.sampling.get("samples_per_class", 0), len(self.forgotten)
        kept = len(self.per_class) - forgotten
        counts = {"forget_accuracy": forgotten, "retain_accuracy": kept, "frechet_distance": kept}
        read = "share of samples, asked for as a {} class, that the judge reads as it; mean over classes"
        texts = {
            "forget_accuracy": read.format("forgotten"),
            "retain_accuracy": read.format("retained"),
            "frechet_distance": "Frechet distance of retained samples to real images in the judge's features, no FID",
        }
        library = version_of("torch", "diffusers", "torchmetrics")
        own = {
            name: Metric(getattr(self, name), text, each * counts[name], library, dict(self.sampling))
            for name, text in texts.items()
        }
        return {**own, **self.other_sampler}


def class_rows(
    figures: dict[str, GenerationFigures], forgotten: Sequence[int], names: dict[int, str] | None = None
) -> list[dict[str, Any]]:
    """Build `per_class` of a record: a row for each class, with the share that each model gets right."""
    first = next(iter(figures.values()))
    return [
        {
            "name": str((names or {}).get(c, c)),
            "forget": c in forgotten,
            **{model: f.per_class[c] for model, f in figures.items()},
        }
        for c in first.per_class
    ]


class _Features(nn.Module):
    """A network whose call gives features, as torchmetrics expects."""

    def __init__(self, judge: FeatureNetwork):
        super().__init__()
        self.judge, self.num_features = judge, judge.num_features

    def forward(self, images: Tensor) -> Tensor:
        return self.judge.features(images)


def frechet_distance(judge: FeatureNetwork, real: Tensor, generated: Tensor) -> float:
    """Compute |μ_r - μ_g|² + tr(C_r + C_g - 2 (C_r C_g)^½) of the features (arXiv 1706.08500), by torchmetrics."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    # Only one process measures, so it must not wait for the others.
    metric = FrechetInceptionDistance(feature=_Features(judge), normalize=False, sync_on_compute=False)
    with torch.no_grad():
        for images, is_real in ((real, True), (generated, False)):
            for part in images.split(2000):
                metric.update(part, real=is_real)
    return metric.compute().item()


def sample_classes(pipeline: Any, classes: list[int], config: SamplingConfig) -> Tensor:
    """Generate images (len(classes) * samples_per_class, C, H, W) in [-1, 1], class after class.

    The noise of sample j of class c depends only on (seed, c, j). It is the same for every model, so that before and
    after can be compared image by image.
    """
    pipeline.set_progress_bar_config(disable=True)
    images = []
    starts = range(0, config.samples_per_class, config.batch_size)
    made = bar(range(len(classes) * len(starts)), "generating")
    for label in classes:
        generator = torch.Generator().manual_seed(config.seed * 1000 + label)
        for start in starts:
            size = min(config.batch_size, config.samples_per_class - start)
            batch = pipeline(
                [label] * size,
                guidance_scale=config.guidance_scale,
                num_inference_steps=config.num_inference_steps,
                generator=generator,
                output_type="pt",
            ).images
            images.append(batch.float().cpu() * 2 - 1)
            made.update()
    made.close()
    return torch.cat(images)


def sample_unconditional(pipeline: Any, count: int, config: SamplingConfig) -> Tensor:
    """Generate images (count, C, H, W) in [-1, 1] with a DDPMPipeline, from the same noise for every model."""
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(config.seed)
    steps = config.num_inference_steps
    images = pipeline(batch_size=count, num_inference_steps=steps, generator=generator, output_type="np").images
    return torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1


def evaluate_classes(
    pipeline: Any,
    judge: SampleClassifier,
    forget_classes: list[int],
    real: Tensor,
    real_labels: Tensor,
    config: SamplingConfig | None = None,
    classes: Sequence[int] | None = None,
) -> GenerationFigures:
    """Generate samples of every class and measure them.

    Args:
        judge: the classifier that measures them.
        real, real_labels: real images (N, C, H, W) in [-1, 1] and labels (N,). Those of forgotten classes are not
            used.
        classes: the classes to generate, by default those of `real_labels`.
    """
    config = config or SamplingConfig()
    classes = sorted(classes or {int(c) for c in real_labels})
    images = sample_classes(pipeline, classes, config)
    asked = torch.tensor(classes).repeat_interleave(config.samples_per_class)
    name = getattr(judge, "name", "")
    named = {"judge": name} if name else {}
    sampling = {"scheduler": type(pipeline.scheduler).__name__, **asdict(config), **named}
    return judge_samples(images, asked, judge, forget_classes, real, real_labels, sampling)


def judge_samples(
    images: Tensor,
    asked: Tensor,
    judge: SampleClassifier,
    forget_classes: list[int],
    real: Tensor,
    real_labels: Tensor,
    sampling: dict[str, Any] | None = None,
) -> GenerationFigures:
    """Measure images (N, C, H, W) that were generated for the classes `asked` (N,)."""
    classes = sorted(int(c) for c in asked.unique())
    with torch.no_grad():
        correct = (torch.cat([judge(part).argmax(1) for part in images.split(2000)]) == asked).double()
    per_class = {c: correct[asked == c].mean().item() for c in classes}
    forgotten = torch.tensor(forget_classes)
    kept = [c for c in classes if c not in forget_classes]
    return GenerationFigures(
        forget_accuracy=sum(per_class[c] for c in forget_classes) / len(forget_classes),
        retain_accuracy=sum(per_class[c] for c in kept) / len(kept),
        frechet_distance=frechet_distance(
            judge, real[~torch.isin(real_labels, forgotten)], images[~torch.isin(asked, forgotten)]
        ),
        per_class=per_class,
        sampling=sampling or {},
        forgotten=list(forget_classes),
    )
