"""The prompts and seeds that a text-to-image model is measured on, and the flags that choose them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

from ..families.concepts import Concept
from .prompt_files import PromptRow, read_prompts
from .safety import DETECTORS

FULL, QUICK = 32, 4  # images of the forget and of the retain prompts each
FIRST_SEED = 3_000_000  # above the seeds of the images that the model generates to train on
HELD_OUT_SEED = 500_000  # further above, of images of prompts that nothing was trained on


@dataclass
class PictureFlags:
    """What to measure on images before and after."""

    eval_profile: str = field(default="full", metadata={"help": "Full, or quick with fewer images and draws."})
    eval_prompts: str | None = field(
        default=None,
        metadata={
            "help": "CSV file (columns prompt and evaluation_seed, such as I2P) or .txt file of prompts, instead of "
            "the concept's."
        },
    )
    eval_retain_prompts: str | None = field(
        default=None, metadata={"help": "Such a file instead of the retain prompts."}
    )
    num_eval_images: int | None = field(
        default=None,
        metadata={
            "help": "Number of forget images, and of retain images; by default all rows of a file, else 32 "
            "(4 if quick)."
        },
    )
    safety_detector: str = field(
        default="auto",
        metadata={
            "help": "Detector of unsafe images: none, open_nsfw, nudenet, or auto (open_nsfw for unsafe concepts)."
        },
    )
    feature_model: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a vision model (DINOv2, CLIP, an image classifier): the retained images are "
            "compared in its features instead of the latents of the pipeline's own VAE."
        },
    )
    clip_model: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of a CLIPModel; adds CLIP scores."}
    )
    inception_weights: str | None = field(
        default=None,
        metadata={"help": "Weights file of torch-fidelity, or download; adds FID, KID, precision and recall."},
    )
    lpips_weights: str | None = field(
        default=None, metadata={"help": "AlexNet's file of weights, or download; adds LPIPS."}
    )
    validation_prompts: list[str] | None = field(
        default=None,
        metadata={
            "help": "Prompts that are drawn at every evaluation (--eval_steps) and sent to the trackers of "
            "--report_to; blurred where an unsafe concept is forgotten."
        },
    )
    num_validation_images: int = field(default=4, metadata={"help": "Images of each validation prompt."})

    def __post_init__(self):
        if self.eval_profile not in ("full", "quick"):
            raise ValueError(f"eval_profile must be full or quick, got {self.eval_profile!r}")
        if self.safety_detector not in ("auto", "none", *DETECTORS):
            raise ValueError(
                f"safety_detector must be auto, none, {' or '.join(DETECTORS)}, got {self.safety_detector!r}"
            )
        if self.num_eval_images is not None and self.num_eval_images < 1:
            raise ValueError(f"num_eval_images must be at least 1, got {self.num_eval_images}")
        if self.num_validation_images < 1:
            raise ValueError(f"num_validation_images must be at least 1, got {self.num_validation_images}")

    @property
    def quick(self) -> bool:
        return self.eval_profile == "quick"

    def rows(self, file: str | None, prompts: Sequence[str], seed: int, full: int = FULL) -> list[PromptRow]:
        """Return the rows of `file`, or without one the prompts in turn with seeds that count up from `seed`.

        `full` is the number of rows without a file where the flags ask for no other.
        """
        limit = self.num_eval_images or (QUICK if self.quick else None)
        if file is not None:
            return read_prompts(file, limit)
        return [PromptRow(prompts[i % len(prompts)], seed + i) for i in range(limit or full)]


@dataclass
class PromptSet:
    """Prompts and seeds, their source in words, and which of their images must not be shown."""

    rows: list[PromptRow]
    source: str
    unsafe: list[bool]


@dataclass
class ConceptPairs:
    """Prompts of concepts and, one for each from the same seed, their anchors'; `names` says whose each is."""

    concept: list[PromptRow]
    anchor: list[PromptRow]
    names: list[str]

    def owned(self, numbers: Iterable[int]) -> dict[str, list[int]]:
        """{concept: which of the numbered pairs are its own}."""
        found: dict[str, list[int]] = {}
        for i in numbers:
            found.setdefault(self.names[i], []).append(i)
        return found

    def anchors_that_stay(self, concepts: Sequence[Concept]) -> list[int]:
        """Numbers of the anchors that the unlearned model should still draw: not the empty prompt, nor a forgotten."""
        forgotten = {prompt for concept in concepts for prompt in (*concept.prompts, *concept.held_out)}
        return [i for i, row in enumerate(self.anchor) if row.prompt.strip() and row.prompt not in forgotten]


def concept_pairs_to_draw(flags: PictureFlags, concepts: Sequence[Concept], seed: int = 0) -> ConceptPairs | None:
    """Return the pictures that say whether a concept is still shown; None if all concepts are unsafe.

    Whether a picture is unsafe is a question for a detector. The pictures are those of the set "forget" of
    `prompt_sets`, unless that one comes from a file, which has no anchors, or holds unsafe concepts too.
    """
    return _pairs(flags, [concept for concept in concepts if not concept.unsafe], FIRST_SEED + seed)


def held_out_pairs(
    flags: PictureFlags, concepts: Sequence[Concept], seed: int = 0, unsafe: bool = False
) -> ConceptPairs | None:
    """The same of prompts that nothing was trained on, half as many; None if there are none.

    Args:
        unsafe: those of the unsafe concepts, which a detector reads, or of the others.
    """
    kept = [concept for concept in concepts if concept.unsafe == unsafe and concept.held_out]
    apart = [replace(concept, prompts=concept.held_out, anchors=concept.held_out_anchors) for concept in kept]
    found = _pairs(flags, apart, FIRST_SEED + HELD_OUT_SEED + seed)
    if found is None:
        return None
    count = max(1, len(found.names) // 2)
    return ConceptPairs(found.concept[:count], found.anchor[:count], found.names[:count])


def _pairs(flags: PictureFlags, asked: Sequence[Concept], seed: int) -> ConceptPairs | None:
    if not asked:
        return None
    turns = [(c.prompts[k % len(c.prompts)], c.anchors[k % len(c.anchors)], c.name) for k, c in _turns(asked)]
    rows = flags.rows(None, [prompt for prompt, _, _ in turns], seed)
    used = [turns[i % len(turns)] for i in range(len(rows))]
    anchors = [PromptRow(anchor, row.seed) for row, (_, anchor, _) in zip(rows, used)]
    return ConceptPairs(rows, anchors, [name for _, _, name in used])


def _turns(concepts: Sequence[Concept]) -> list[tuple[int, Concept]]:
    """Return (round, concept): each concept in turn, for as many rounds as the longest has prompts."""
    return [(k, c) for k in range(max(len(c.prompts) for c in concepts)) for c in concepts]


def prompt_sets(
    flags: PictureFlags, concepts: Sequence[Concept], retain_prompts: Sequence[str], seed: int = 0
) -> dict[str, PromptSet]:
    """Return the prompt sets "forget" and "retain".

    They come from the files that the flags name. Without one the forget set takes the concepts' prompts in turn, and
    the retain set takes `retain_prompts`. A detector looks at unsafe concepts only, so where others stand beside them
    there are more forget pictures by default: as many as hold 32 of unsafe ones.

    Raises:
        ValueError: a file cannot be used.
    """
    turns = [(c.prompts[k % len(c.prompts)], c.unsafe) for k, c in _turns(concepts)]
    unsafe_ones = list(accumulate(turns[i % len(turns)][1] for i in range(FULL * len(turns))))
    enough = next((i + 1 for i, count in enumerate(unsafe_ones) if count == FULL), FULL)
    forget = flags.rows(flags.eval_prompts, [prompt for prompt, _ in turns], FIRST_SEED + seed, enough)
    retain = flags.rows(flags.eval_retain_prompts, retain_prompts, 2 * FIRST_SEED + seed)
    if flags.eval_prompts:
        unsafe = [any(c.unsafe for c in concepts)] * len(forget)
    else:
        unsafe = [turns[i % len(turns)][1] for i in range(len(forget))]
    sources = (
        Path(file).name if file else f"the prompts to {kind}"
        for kind, file in (("forget", flags.eval_prompts), ("retain", flags.eval_retain_prompts))
    )
    return {
        "forget": PromptSet(forget, next(sources), unsafe),
        "retain": PromptSet(retain, next(sources), [False] * len(retain)),
    }


def measuring_plan(flags: PictureFlags, concepts: Sequence[Concept], retain_prompts: Sequence[str], seed: int) -> str:
    """Return one line that says how many images the evaluation generates with each model."""
    sets, pairs = prompt_sets(flags, concepts, retain_prompts, seed), concept_pairs_to_draw(flags, concepts, seed)
    apart = held_out_pairs(flags, concepts, seed)
    unsafe = held_out_pairs(flags, concepts, seed, unsafe=True) if flags.safety_detector != "none" else None
    counts = {f"{kind} images": len(drawn.rows) for kind, drawn in sets.items()}
    if pairs is not None and pairs.concept != sets["forget"].rows:  # else they are the same images
        counts["concept images"] = len(pairs.concept)
    held_out = sum(len(part.concept) for part in (apart, unsafe) if part is not None)
    if held_out:
        counts["images of held-out prompts"] = held_out
    after = sum(counts.values())
    read = apart or pairs
    after += len(read.anchors_that_stay(concepts)) if read is not None else 0
    anchored = [part for part in (pairs, apart) if part is not None]
    if anchored:
        counts["anchor images"] = sum(len(part.anchor) for part in anchored)
    each = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"to measure, the original generates {each}, and the unlearned model {after} images"
