"""Which neighbours of what was forgotten moved: what is read of each, before and after, as retention matrices.

A neighbour is a prompt near the concept's in the text encoder, or a class that the classifier takes the forgotten one
for. Row i of a matrix is what was asked for, column j the share of its pictures that are read as j.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..families.text_to_image.objective import encode_prompts
from .metric import Metric, Role, version_of

NAME = "neighbours_kept_share"
# Common things, the candidates where nobody names neighbours.
WORDS = tuple(
    (
        "airplane apple bag ball balloon banana bear bed bee bell bicycle bird boat book bottle box bridge bus "
        "butterfly cake camera candle car castle cat chair church clock cloud coat coffee cow crown cup dog door "
        "dress drum duck elephant factory fish flag flower fork frog garden ghost glass guitar hammer hat "
        "helicopter horse hospital house key knife lamp leaf lion map missile moon motorcycle mountain mouse "
        "mushroom pen phone piano pizza plane rabbit ring river road robot rocket rose sailboat satellite school "
        "sheep ship shoe snake spaceship spider spoon star statue sun sword table taxi telescope tent tiger tower "
        "tractor train tree truck umbrella violin wheel "
    ).split()
)


def nearest_prompts(pipeline: Any, prompt: str, others: Sequence[str], count: int) -> list[str]:
    """The `count` of `others` whose text embeddings are nearest to the prompt's, by their cosine, the nearest first.

    The embedding is the text encoder's output at the last word.
    """
    candidates = [text for text in dict.fromkeys(others) if text.strip().casefold() != prompt.strip().casefold()]
    encoded = encode_prompts(pipeline, [prompt, *candidates])
    places = {text: i for i, text in enumerate(encoded.texts)}
    rows = torch.stack([encoded.embeds[places[t], encoded.last[places[t]]].float() for t in (prompt, *candidates)])
    rows = torch.nn.functional.normalize(rows, dim=-1)
    order = (rows[1:] @ rows[0]).argsort(descending=True, stable=True)
    return [candidates[i] for i in order[:count]]


def nearest_classes(logits: Tensor, label: int, known: Sequence[int], count: int) -> list[int]:
    """The `count` of the classes `known` that a classifier takes pictures of `label` for most, the likeliest first.

    Args:
        logits: (N, classes) of the original's pictures of the class.
    """
    likely = logits.float().softmax(1).mean(0)
    others = [c for c in known if c != label]
    return sorted(others, key=lambda c: -float(likely[c]))[:count]


def read_by_means(known: Tensor, drawn: Tensor) -> Tensor:
    """Which of N things each picture (N, S, ...) shows: the one whose mean latents are nearest, (N, S) int64.

    A mean leaves out the picture that was drawn from the same seed for the same thing, in `known` as in `drawn`: a
    picture would else be told by its own noise.

    Args:
        known: latents of the original's pictures, (N, S, ...), S of at least 2.
    """
    n, samples = known.shape[:2]
    flat, other = known.flatten(2).double(), drawn.flatten(2).double()
    means = flat.mean(1)  # (N, D)
    distances = torch.cdist(other.flatten(0, 1), means).view(n, samples, n)
    own = (flat.sum(1, keepdim=True) - flat) / (samples - 1)  # (N, S, D), without the same seed
    rows = torch.arange(n)
    distances[rows, :, rows] = (other - own).norm(dim=-1)
    return distances.argmin(-1)


def retention_matrix(read: Tensor) -> list[list[float]]:
    """The share of each row's pictures that are read as each of the N things, from (N, S) int64; -1 is none."""
    n = len(read)
    return [[(row == j).double().mean().item() for j in range(n)] for row in read]


def retention(names: Sequence[str], before: Tensor, after: Tensor, how: str) -> dict[str, dict[str, Metric]]:
    """The metrics of "before" and "after": the mean share of the neighbours' pictures that are read as asked.

    It says what moved and is no limit of what should stay, since some neighbours are meant to move with the forgotten.

    Args:
        names: of what was asked for, the forgotten first.
        before, after: (N, S) int64, the number of what each picture was read as.
        how: what read them, in words.
    """
    metrics: dict[str, dict[str, Metric]] = {}
    for model, read in (("before", before), ("after", after)):
        kept = (read[1:] == torch.arange(1, len(read))[:, None]).double()
        metrics[model] = {
            NAME: Metric(
                kept.mean().item(),
                f"share of the pictures of {len(names) - 1} neighbours of the forgotten that are read as what "
                f"was asked for, by {how}; large is retained",
                samples=kept.numel(),
                library=version_of("torch", "diffusers"),
                details={"asked": list(names), "matrix": retention_matrix(read)},
                role=Role("other", None),
            )
        }
    return metrics
