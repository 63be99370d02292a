"""Compare class-conditional pipelines, such as before, after and retrained, by numbers and pictures."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..families.ddpm.pipeline import ClassConditionalDDPMPipeline, load_ddpm_pipeline
from ..families.load import DIT, prepare_family
from ..saliency.ranks import NAME
from ..saving.adapters import set_strengths
from .generation import GenerationFigures, SamplingConfig, evaluate_classes, sample_classes, sample_unconditional
from .grids import before_after, in_columns, save_grid
from .judge import ASSETS
from .other_sampler import sampled_otherwise
from .protocols import SampleClassifier
from .tables import figures_table, write_figures

DIGITS_DDPM = ASSETS / "digits_ddpm"
RETRAINED = ASSETS / "digits_ddpm_retrained"


def retrained_digits_ddpm(excluded: int) -> Any:
    """Load the default pipeline that was retrained from scratch without the digit `excluded`.

    Its weights are stored in half precision. A wheel holds those without the 3, a checkout those of every digit.

    Raises:
        OSError: the weights are not in this installation.
    """
    from safetensors.torch import load_file

    path = RETRAINED / f"without_{excluded}.safetensors"
    if not path.is_file():
        raise OSError(
            f"the model retrained without the {excluded} is not in this installation: install from a checkout, or run "
            f"scripts/train_digits_ddpm.py --exclude_class {excluded} in one"
        )
    pipeline: Any = load_ddpm_pipeline(str(DIGITS_DDPM))
    weights = load_file(path)
    pipeline.unet.load_state_dict({name: value.float() for name, value in weights.items()})
    return pipeline


def compare_pipelines(
    pipelines: dict[str, Any],
    judge: SampleClassifier,
    forget_classes: list[int],
    real: Tensor,
    real_labels: Tensor,
    folder: str | Path,
    config: SamplingConfig,
    title: str = "",
    classes: Sequence[int] | None = None,
    cross_check: Sequence[str] = (),
    class_names: Mapping[int, str] | None = None,
) -> dict[str, GenerationFigures]:
    """Measure each pipeline and write `figures.json`, `figures.md` and `before_after.png` to `folder`.

    Args:
        cross_check: names of the pipelines that are also read under another sampler (`sampled_otherwise`).
        class_names: what the columns of the picture are called; numbers by default.
    """
    folder = Path(folder)
    classes = sorted(classes or {int(c) for c in real_labels})
    figures = {
        name: evaluate_classes(pipeline, judge, forget_classes, real, real_labels, config, classes)
        for name, pipeline in pipelines.items()
    }
    for name in cross_check:
        figures[name].other_sampler = sampled_otherwise(pipelines[name], judge, forget_classes, classes, config)
    write_figures(folder, {n: asdict(f) for n, f in figures.items()}, figures_table(figures))
    before_after(pipelines, classes, forget_classes, folder / "before_after.png", config, title, class_names)
    return figures


def picture(
    pipelines: dict[str, Any],
    path: str | Path,
    forget_classes: list[int],
    config: SamplingConfig,
    class_names: Mapping[int, str] | None = None,
) -> None:
    """Write before_after.png without measuring: the model's classes, or ten columns of unconditional samples."""
    first = next(iter(pipelines.values()))
    if _is_dit(first) or first.unet.config.num_class_embeds:
        shown = shown_classes(first, forget_classes)
        before_after(pipelines, shown, forget_classes, path, config, class_names=class_names)
        return
    grids = {name: sample_unconditional(p, 40, config).unflatten(0, (10, 4)) for name, p in pipelines.items()}
    save_grid(grids, [""] * 10, [False] * 10, path)


def strength_picture(
    pipeline: Any,
    path: str | Path,
    forget_classes: list[int],
    config: SamplingConfig,
    strengths: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5),
    class_names: Mapping[int, str] | None = None,
) -> None:
    """Write a PNG with a row for each strength of the pipeline's adapter. Afterwards the strength is 1.

    The samples of a column start from the same noise.
    """
    classes = shown_classes(pipeline, forget_classes)
    four = replace(config, samples_per_class=4, batch_size=4)
    grids = {}
    for strength in strengths:
        set_strengths(pipeline, {NAME: strength})
        grids[f"{strength:g}"] = sample_classes(pipeline, classes, four).unflatten(0, (len(classes), 4))
    set_strengths(pipeline, {NAME: 1.0})
    save_grid(
        grids, in_columns(classes, class_names), [c in forget_classes for c in classes], path, "adapter strength"
    )


def shown_classes(pipeline: Any, forget_classes: list[int]) -> list[int]:
    """Return about ten classes to show, in order: the forgotten ones and others."""
    if _is_dit(pipeline):
        others = [c for c in range(pipeline.transformer.config.num_embeds_ada_norm) if c not in forget_classes]
        return sorted([*forget_classes, *others[: 10 - len(forget_classes)]])
    classes = [c for c in range(pipeline.unet.config.num_class_embeds) if c != pipeline.null_class]
    return sorted({*forget_classes, *classes[:10]})


def frozen_copy(pipeline: Any) -> Any:
    """Copy the pipeline with its current weights, for the "before" row."""
    if _is_dit(pipeline):
        network = copy.deepcopy(pipeline.transformer).eval().requires_grad_(False)
        return type(pipeline)(network, pipeline.vae, copy.deepcopy(pipeline.scheduler))
    unet = copy.deepcopy(pipeline.unet).eval().requires_grad_(False)
    extra = {"null_class": pipeline.null_class} if isinstance(pipeline, ClassConditionalDDPMPipeline) else {}
    return type(pipeline)(unet=unet, scheduler=copy.deepcopy(pipeline.scheduler), **extra)


def _is_dit(pipeline: Any) -> bool:
    return prepare_family(pipeline) is DIT
