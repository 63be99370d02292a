"""How many pictures still show a concept, read in the latents of the pipeline's own VAE: no other network is needed.

The original says what the concept looks like. It generates a picture for each prompt of the concept, one for the
prompt of its anchor from the same seed, and pictures of what is retained. A picture of the unlearned model shows the
concept where it is nearer to the original's concept picture of its seed than to the anchor's picture of that seed and
than to anything else. For that stand the mean of the retained pictures, alone and with the layout that the seed gives
the anchor's picture: a picture of another thing is as near to the concept's as to the anchor's, but nearer to a mean.
What is farther from the concept's picture than the anchor's is, such as noise, does not show it either.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .metric import Metric, version_of

DEFINITION = (
    "share of pictures of the {}'s prompts that are nearer to the original's picture of {} than to that of {} and to "
    "the mean of its retained ones, in the VAE's latents (an unlearned model's against the own seed's, the original's "
    "against those of other seeds); {}"
)
SEPARABLE = 0.8  # accuracy below which the latents do not tell concept and anchor apart


@dataclass
class ConceptLatents:
    """Latents of one concept's pictures by the original model; each row is one seed.

    concept, anchor: (N, C, h, w), of the same seeds in the same order.
    retained: (M, C, h, w), of other prompts and seeds.
    prompts: which of the concept's prompts each row is of, N texts or numbers; by default all are of one.

    Raises:
        ValueError: the shapes differ, or there are no pictures.
    """

    concept: Tensor
    anchor: Tensor
    retained: Tensor
    prompts: Sequence[Hashable] = ()

    def __post_init__(self) -> None:
        if self.concept.shape != self.anchor.shape or not len(self.concept) or not len(self.retained):
            shapes = ", ".join(str(tuple(part.shape)) for part in (self.concept, self.anchor, self.retained))
            raise ValueError(f"latents of concept, anchor and retained pictures have the shapes {shapes}")
        self.prompts = list(self.prompts) or [0] * len(self.concept)
        if len(self.prompts) != len(self.concept):
            raise ValueError(f"{len(self.prompts)} prompts of {len(self.concept)} pictures: give one each")
        parts = (self.concept, self.anchor, self.retained)
        self.concept, self.anchor, self.retained = (part.double().flatten(1) for part in parts)


def shows_concept(original: ConceptLatents, drawn: Tensor) -> Tensor:
    """Whether each picture shows the concept, (N,) bool: read against the original's pictures of the same seed.

    Args:
        drawn: latents (N, C, h, w) of an unlearned model's pictures of the concept's prompts, from the same seeds.
    """
    x, mean = drawn.double().flatten(1), original.retained.mean(0)
    layout = original.anchor - original.anchor.mean(0)
    nearest = _nearest_first(x, original.concept, original.anchor, mean, mean + layout)
    reach = (original.anchor - original.concept).square().sum(1)
    return nearest & ((x - original.concept).square().sum(1) < reach)


def shows_by_others(original: ConceptLatents, drawn: Tensor) -> Tensor:
    """Whether each picture shows the concept, (N,) bool: read against the original's pictures of other seeds.

    Their mean concept picture and their mean anchor picture stand for the concept and the anchor, and what the two
    pictures of the own seed have in common is taken off first. So the original's own pictures can be read honestly,
    which `shows_concept` compares with themselves. The other seeds are those of the same prompt, where there are any,
    or all: whichever tells the original's pictures apart better. With one seed nothing is left to compare with, and no
    picture shows it.
    """
    return _by_others(original, drawn, _better_by_prompt(original))


def shows_by_means(original: ConceptLatents, drawn: Tensor) -> Tensor:
    """Whether each picture shows the concept, (N,) bool, whatever prompt and seed it was drawn from.

    It does where it is nearer to the mean of the original's concept pictures of some prompt than to the mean of the
    anchor's pictures of any prompt and to the mean of the retained ones.

    Args:
        drawn: latents (N, C, h, w) of any pictures.
    """
    x = drawn.double().flatten(1)
    concept, anchor = (_by_prompt(part, original.prompts) for part in (original.concept, original.anchor))
    return _least(x, concept) < torch.minimum(_least(x, anchor), _least(x, original.retained.mean(0, keepdim=True)))


def mean_separability(original: ConceptLatents) -> float:
    """Accuracy (0 to 1) with which `shows_by_means` tells the original's concept pictures from its anchor pictures.

    A picture is left out of the means that it is compared with. It is the mean over both kinds; 0.5 is chance.
    """
    right = 0
    for i in range(len(original.concept)):
        rest = [j for j in range(len(original.concept)) if j != i]
        prompts = [original.prompts[j] for j in rest]
        for own, other in ((original.concept, original.anchor), (original.anchor, original.concept)):
            x, mean = own[i : i + 1], original.retained.mean(0, keepdim=True)
            near, far = (_least(x, _by_prompt(part[rest], prompts)) for part in (own, other))
            shown = near < far if own is original.anchor else near < torch.minimum(far, _least(x, mean))
            right += int(shown)
    return right / (2 * len(original.concept))


def _by_prompt(rows: Tensor, prompts: Sequence[Hashable]) -> Tensor:
    """Return the mean of the rows of each prompt, (prompts, D)."""
    owned = [[i for i, own in enumerate(prompts) if own == one] for one in dict.fromkeys(prompts)]
    return torch.stack([rows[numbers].mean(0) for numbers in owned])


def _least(x: Tensor, points: Tensor) -> Tensor:
    """Return the squared distance of each row to the nearest point, (N,)."""
    return torch.stack([(x - point).square().sum(1) for point in points]).amin(0)


def _by_others(original: ConceptLatents, drawn: Tensor, by_prompt: bool) -> Tensor:
    x, mean, count = drawn.double().flatten(1), original.retained.mean(0), len(drawn)
    if count < 2:
        return torch.zeros(count, dtype=torch.bool)
    concept, anchor = (_means(part, original.prompts, by_prompt) for part in (original.concept, original.anchor))
    layout = (original.concept + original.anchor - concept - anchor) / 2
    return _nearest_first(x - layout, concept, anchor, mean)


def _means(rows: Tensor, prompts: Sequence[Hashable], by_prompt: bool) -> Tensor:
    """Return for each row the mean of the other rows, (N, D); `by_prompt` of those of the same prompt if there are."""
    own = torch.tensor([[one == other for other in prompts] for one in prompts], dtype=rows.dtype)
    others = 1 - torch.eye(len(rows), dtype=rows.dtype)
    if by_prompt:
        same = own * others
        others = torch.where(same.sum(1, keepdim=True) > 0, same, others)
    return others @ rows / others.sum(1, keepdim=True)


def _better_by_prompt(original: ConceptLatents) -> bool:
    return _accuracy(original, True) > _accuracy(original, False)


def _accuracy(original: ConceptLatents, by_prompt: bool) -> float:
    concept, anchor = (_by_others(original, part, by_prompt) for part in (original.concept, original.anchor))
    return (concept.double().mean().item() + 1 - anchor.double().mean().item()) / 2


def _nearest_first(x: Tensor, first: Tensor, *others: Tensor) -> Tensor:
    nearest = torch.stack([(x - other).square().sum(1) for other in others]).amin(0)
    return (x - first).square().sum(1) < nearest


def separability(original: ConceptLatents) -> float:
    """Accuracy (0 to 1) with which `shows_by_others` tells the original's concept pictures from its anchor pictures.

    It is the mean over both kinds; 0.5 is chance.
    """
    return max(_accuracy(original, by_prompt) for by_prompt in (True, False))


def concept_share_latents(original: dict[str, ConceptLatents], drawn: dict[str, Tensor] | None = None) -> Metric:
    """Return the share (0 to 1) of pictures that show their concept; small is forgotten.

    Args:
        original: the original's latents, by concept.
        drawn: latents of the unlearned model's pictures, by concept. Without them the original's own pictures are
            read, each against those of all other seeds.

    Returns:
        details: "separable", the least `separability` of a concept; below `SEPARABLE` the share says nothing.
        "by_other_seeds", the share by `shows_by_others`. "concepts", of each concept the share, the number of
        pictures, and "anchor_distance", the root mean square difference of a concept and its anchor's picture. A
        `latent_distance_retain` as large says that the model moved too far for this reading.
    """
    read = drawn or {name: latents.concept for name, latents in original.items()}
    others = {name: shows_by_others(latents, read[name]) for name, latents in original.items()}
    found = {name: shows_concept(original[name], part) for name, part in drawn.items()} if drawn else others
    every, by_others = (torch.cat(list(part.values())).double() for part in (found, others))
    return Metric(
        every.mean().item(),
        DEFINITION.format("concept", "the concept", "its anchor", "small is forgotten"),
        samples=len(every),
        library=version_of("torch", "diffusers"),
        details={
            "separable": min(separability(latents) for latents in original.values()),
            "by_other_seeds": by_others.mean().item(),
            "concepts": {
                name: {
                    "share": part.double().mean().item(),
                    "samples": len(part),
                    "anchor_distance": (original[name].concept - original[name].anchor).square().mean().sqrt().item(),
                }
                for name, part in found.items()
            },
        },
    )


def anchor_share_latents(original: dict[str, ConceptLatents], drawn: dict[str, Tensor] | None = None) -> Metric:
    """Return the share (0 to 1) of pictures that still show the anchor they were asked for; small is damage.

    It is `concept_share_latents` with the two in each other's place: what a concept becomes should stay what it was.

    Args:
        original: the original's latents, by concept.
        drawn: latents of the unlearned model's pictures of the anchor's prompts, by concept, of the same seeds.
    """
    places = {c: ConceptLatents(own.anchor, own.concept, own.retained, own.prompts) for c, own in original.items()}
    found = concept_share_latents(places, drawn)
    definition = DEFINITION.format("anchor", "the anchor", "the concept", "small is damage")
    return replace(found, definition=definition)
