"""Measure an emoji model: generate images of every style and object, and read them with the shipped classifier.

The metrics are those of UnlearnCanvas (arXiv 2402.11846).
"""

from typing import Any

import torch
from torch import Tensor

from hf_unlearn.evaluation import frechet_distance
from hf_unlearn.evaluation.emoji import OBJECTS, STYLES, EmojiClassifier, prompt_of


@torch.no_grad()
def draw_grid(pipeline: Any, per_prompt: int, steps: int, guidance: float, seed: int = 0, batch_size: int = 36):
    """Generate `per_prompt` images of every style x object: (images (N, 3, 64, 64) in [-1, 1], styles, objects).

    Image j of a prompt starts from the same noise for every model.
    """
    pipeline.set_progress_bar_config(disable=True)
    asked = [(s, o, j) for s in range(len(STYLES)) for o in range(len(OBJECTS)) for j in range(per_prompt)]
    images = []
    for start in range(0, len(asked), batch_size):
        part = asked[start : start + batch_size]
        generators = [torch.Generator().manual_seed(seed * 1_000_000 + s * 10_000 + o * 100 + j) for s, o, j in part]
        prompts = [prompt_of(STYLES[s], OBJECTS[o]) for s, o, _ in part]
        options = dict(num_inference_steps=steps, guidance_scale=guidance, output_type="pt")
        images.append(pipeline(prompts, generator=generators, **options).images.float().cpu() * 2 - 1)
    styles, things, _ = torch.tensor(asked).T
    return torch.cat(images), styles, things


@torch.no_grad()
def canvas_figures(
    classifier: EmojiClassifier,
    images: Tensor,
    styles: Tensor,
    things: Tensor,
    forgotten: tuple[str, int],
    real: tuple[Tensor, Tensor, Tensor],
) -> dict[str, float]:
    """UA, IRA and CRA (shares), and the Frechet distance of the retained images in the classifier's features.

    UA is the share of images generated for the forgotten style or object that are not recognised as it. IRA is the
    accuracy on all other images in the domain of the forgotten one, CRA their accuracy in the other domain.

    Args:
        forgotten: ("style", number) or ("object", number).
        real: (images, styles, objects) of real images; the retained ones are what the distance is to.
    """
    read = [torch.cat(part).argmax(1) for part in zip(*(classifier(batch) for batch in images.split(256)))]
    kind, number = forgotten
    own, other = (0, 1) if kind == "style" else (1, 0)
    asked = (styles, things)
    gone = asked[own] == number
    correct = [(read[k] == asked[k]).double() for k in (0, 1)]
    kept_real = real[0][real[1 + own] != number]
    return {
        "UA": 1 - correct[own][gone].mean().item(),
        "IRA": correct[own][~gone].mean().item(),
        "CRA": correct[other][~gone].mean().item(),
        "frechet": frechet_distance(classifier, kept_real, images[~gone]),
    }
