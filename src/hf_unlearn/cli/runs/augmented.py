"""What `--augment_with` adds to a run on a classifier: retained variants, and variants of what is forgotten."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from ...augmentation import Variants, Variation, augment, find_slow_learnt, generator_of
from ...augmentation.retaining import repairing
from ...common.losses import spread
from ...data.class_names import names_by_number
from ...data.pairs import labels_of, subset
from ...data.protocols import SizedDataset
from ...evaluation.class_judge import ClassifierJudge
from ...evaluation.metric import Metric
from ...families.load import load_model
from ..augment_flags import AugmentFlags

PROBED = "forget_variants"  # the evaluation set of variants of forget images
PROBES = 200  # forget images that have a variant


@dataclass(frozen=True)
class Augmented:
    """The retain set with variants, variants of the forget set, and what was done in words."""

    retain: Subset
    probes: SizedDataset
    said: str


def augmented(
    flags: AugmentFlags,
    model: Any,
    processor: Any,
    forget: SizedDataset,
    retain: SizedDataset,
    folder: Path,
    seed: int,
    device: Any = "cpu",
) -> Augmented:
    """Draw the variants of a run into `folder`, with the generator on `device`.

    The classifier itself, as it is before it forgets, refuses those that it does not read as their class.

    Raises:
        ValueError: what `generator_of`, `find_slow_learnt` and `augment` raise.
    """
    pipeline, _ = load_model(flags.augment_with or "")
    how = Variation(num_inference_steps=flags.augment_steps, prompt=flags.augment_prompt)
    generator = generator_of(pipeline.to(device), how, flags.augment_with or "")
    named = names_by_number(model.config)
    judge = ClassifierJudge(copy.deepcopy(model), processor)
    by: Any = flags.augment_by
    slow = find_slow_learnt(model, retain, by, seed=seed, classes=sorted(set(labels_of(retain) or [])))
    shared: dict[str, Any] = {"strength": flags.augment_strength, "judge": judge, "names": named, "seed": seed}
    shared["cache_dir"] = folder / "cache"
    kept = augment(retain, slow, generator, folder / "retain", flags.augment_factor, **shared)
    chosen = subset(forget, spread(len(forget), PROBES))
    asked = augment(chosen, range(len(chosen)), generator, folder / "forget", 2, **shared)
    joined = repairing(retain, slow, kept.dataset(model, processor), flags.augment_times)
    said = [_said(kept, f"of {len(slow.positions)} slow-learnt retained images"), _said(asked, "of forget images")]
    return Augmented(joined, asked.dataset(model, processor), "\n".join(said))


def explained(figures: dict[str, Metric]) -> dict[str, Metric]:
    """The same metrics; that of variants of forget images says what it is."""
    name = f"{PROBED}_accuracy"
    if name not in figures:
        return figures
    said = "share of variants of forget images, all of them read right by the original, that are read right"
    return {**figures, name: replace(figures[name], definition=said)}


def _said(found: Variants, what: str) -> str:
    refused = sum(found.refused.values())
    return f"{len(found.rows)} variants {what}; {refused} refused, which the classifier reads as another class"
