"""What to forget, in words: prompts that show a concept, and for each the prompt it should draw like afterwards."""

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import zip_longest

from ..common.losses import spread
from .concept_words import FEWEST_TEMPLATES, HELD_OUT, PRESETS, RELATED, RETAIN_PROMPTS, TEMPLATES

EVERY = 4  # of that many templates that are given, one is held out


@dataclass(frozen=True)
class Concept:
    """A concept's prompts and, one for each, its anchor's. `anchors` and `prompts` have equal length.

    unsafe: pictures of it are blurred wherever they are shown.
    held_out, held_out_anchors: further prompts and their anchors' that nothing is trained on. What they show tells
        whether the concept was forgotten, or a few prompts of it.
    least: how many of the prompts need an image; by default all. Fewer do of prompts of ours (`fitting`).
    """

    name: str
    prompts: tuple[str, ...]
    anchors: tuple[str, ...]
    unsafe: bool = False
    held_out: tuple[str, ...] = ()
    held_out_anchors: tuple[str, ...] = ()
    least: int | None = None

    @property
    def trained(self) -> tuple[str, tuple[str, ...], tuple[str, ...], bool]:
        """All of it that a training run depends on."""
        return self.name, self.prompts, self.anchors, self.unsafe

    def is_in(self, caption: str, in_number: bool = False) -> bool:
        """Whether a caption holds the concept's words, those after the colon for a preset with a name, or is one of
        its prompts.

        Args:
            in_number: also where one of the two says one and the other several: "cars" for "a car".
        """
        words = re.sub(r"^(a|an|the) ", "", normal(self.name.partition(":")[2] or self.name))
        form = rf"{re.escape(re.sub('s$', '', words))}(?:s|es)?" if in_number else re.escape(words)
        named = re.search(rf"(?<!\w){form}(?!\w)", normal(caption))
        return named is not None or bool(same_texts([caption], self.prompts))


def normal(text: str) -> str:
    """A text without differences of case and spaces, in which two prompts are compared."""
    return " ".join(text.split()).casefold()


def same_texts(some: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return the texts of `some` that are also among `others` but for case and spaces."""
    known = {normal(text) for text in others}
    return [text for text in some if normal(text) in known]


def prompts_to_retain(concepts: Sequence[Concept], given: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the prompts of what stays: `given` as they are, else those of `RETAIN_PROMPTS` that name no concept.

    A retained prompt that draws what is to be forgotten keeps it: "a red car on a street" kept cars.
    """
    if given:
        return tuple(given)
    return tuple(prompt for prompt in RETAIN_PROMPTS if not naming([prompt], concepts))


def naming(prompts: Iterable[str], concepts: Sequence[Concept]) -> list[str]:
    """Return the prompts that name one of the concepts, in the singular or the plural."""
    return [prompt for prompt in prompts if any(concept.is_in(prompt, in_number=True) for concept in concepts)]


def about_retaining(concepts: Sequence[Concept], given: Sequence[str] | None = None) -> list[str]:
    """A line for each prompt of ours that is left out, as it names what is forgotten, or each given one that does."""
    named = naming(given or RETAIN_PROMPTS, concepts)
    fate = "retained as asked" if given else "not retained"
    return [f"{prompt!r} names what is forgotten and is {fate}" for prompt in named]


def concept_pairs(concepts: Sequence[Concept], num_forget_images: int | None = None) -> list[tuple[str, str]]:
    """Return the (prompt, anchor) pairs of all concepts: the first of each, then the second of each, and so on.

    Args:
        num_forget_images: images that will be generated for them, one a pair; None does not compare. Where they are
            few, prompts of ours are left out (`fitting`).

    Raises:
        ValueError: there are fewer images than pairs.
    """
    if num_forget_images is not None:
        concepts = fitting(concepts, num_forget_images)
    rounds = zip_longest(*(zip(concept.prompts, concept.anchors) for concept in concepts))
    pairs = list(dict.fromkeys(pair for turn in rounds for pair in turn if pair is not None))
    if num_forget_images is not None and num_forget_images < len(pairs):
        raise ValueError(
            f"num_forget_images is {num_forget_images}, but each of the {len(pairs)} prompts of {len(concepts)} "
            f"concept{'s' * (len(concepts) > 1)} needs an image: set num_forget_images to {len(pairs)} or more "
            "(--num_forget_images), or name fewer prompts (--prompt_templates)"
        )
    return pairs


def fitting(concepts: Sequence[Concept], images: int) -> list[Concept]:
    """The concepts with as many prompts as so many images cover, which they share evenly: of each `least` at least.

    These are spread over all of its prompts, which differ in how many words stand before the concept.
    """
    share = images // max(1, len(concepts))
    counts = [len(c.prompts) if c.least is None else max(c.least, share) for c in concepts]
    chosen = [spread(len(c.prompts), n) for n, c in zip(counts, concepts)]
    return [
        replace(c, prompts=tuple(c.prompts[i] for i in kept), anchors=tuple(c.anchors[i] for i in kept))
        for kept, c in zip(chosen, concepts)
    ]


def concept_of(
    text: str,
    anchor: str | None = None,
    templates: Sequence[str] | None = None,
    held_out: Sequence[str] | None = None,
) -> Concept:
    """A preset ("nudity", "artist style:Van Gogh") or free text, whose prompts are made from `templates`.

    The name of a preset is found whatever its case, and with "_" or "-" for its spaces. Free text that only resembles
    one gives a UserWarning: its pictures are not blurred and its prompts are the templates'.

    Args:
        anchor: what to draw instead. It replaces a preset's anchors; free text without one goes to the empty prompt.
        templates: prompts of free text, with "{}" in the place of the concept; default `TEMPLATES`.
        held_out: templates that nothing is trained on; none if empty. By default every fourth of `templates` where
            there are four or more, else `HELD_OUT`; a preset has its own.

    Raises:
        ValueError: the text is empty, a preset lacks or has too much of a name, concept and anchor are the same, a
            template has no place for the concept, or one is both trained on and held out.
    """
    for template in (*(templates or ()), *(held_out or ())):
        if template.count("{}") != 1 or template.replace("{}", "").count("{") or template.replace("{}", "").count("}"):
            raise ValueError(f'prompt template {template!r} needs "{{}}" once, in the place of the concept')
    head, colon, rest = (part.strip() for part in text.partition(":"))
    if not head:
        raise ValueError("the concept is empty: say what to forget")
    if anchor is not None and anchor.strip().lower() == text.strip().lower():
        raise ValueError(f"concept {text!r} is its own anchor: choose another anchor_concept")
    preset = _preset_named(head)
    if preset is None:
        _warn_near(head)
        made = _of_templates(text.strip(), anchor, *_split(templates, held_out))
        return made if templates else replace(made, least=FEWEST_TEMPLATES)
    text, head = preset + text.strip()[len(head) :], preset
    if templates or held_out:
        raise ValueError(f"concept {head!r} has prompts of its own: leave prompt_templates and held_out_templates out")
    pairs, apart, unsafe = PRESETS[head]
    wants_name = "{}" in pairs[0][0]
    if wants_name and not rest:
        raise ValueError(f'concept {head!r} needs a name: "{head}:NAME"')
    if colon and not wants_name:
        raise ValueError(f"concept {head!r} takes no name, got {rest!r}")
    sides = [tuple(prompt.format(rest) for prompt, _ in part) for part in (pairs, apart)]
    anchors = [tuple(anchor or other for _, other in part) for part in (pairs, apart)]
    return Concept(text, sides[0], anchors[0], unsafe, sides[1], anchors[1], FEWEST_TEMPLATES)


def _split(given: Sequence[str] | None, held_out: Sequence[str] | None) -> tuple[Sequence[str], Sequence[str]]:
    """(templates to train on, those that are held out)."""
    templates = list(dict.fromkeys(given or TEMPLATES))
    if held_out is not None:
        both = same_texts(held_out, templates)
        if both:
            raise ValueError(f"the template {both[0]!r} is in prompt_templates and in held_out_templates: drop one")
        return templates, held_out
    if not given or len(templates) < EVERY:
        return templates, [t for t in HELD_OUT if not same_texts([t], templates)]
    apart = templates[EVERY - 1 :: EVERY]
    return [t for t in templates if t not in apart], apart


def _of_templates(text: str, anchor: str | None, templates: Sequence[str], held_out: Sequence[str]) -> Concept:
    prompts, apart = (tuple(t.format(text) for t in part) for part in (templates, held_out))
    anchors, others = (tuple(t.format(anchor) if anchor else "" for t in part) for part in (templates, held_out))
    return Concept(text, prompts, anchors, held_out=apart, held_out_anchors=others)


def _spaced(text: str) -> str:
    return normal(re.sub(r"[_-]", " ", text))


def _preset_named(head: str) -> str | None:
    """The preset of this name, or None."""
    return next((name for name in PRESETS if _spaced(head) == name), None)


def _warn_near(head: str) -> None:
    """Say it where free text resembles the name of a preset."""
    said = _spaced(head)
    close = get_close_matches(said, PRESETS, n=1, cutoff=0.75)
    near = next((name for name, words in RELATED.items() if said in words), close[0] if close else None)
    if near is not None:
        blurred = ", and its pictures are not blurred" if PRESETS[near].unsafe else ""
        warnings.warn(
            f"concept {head!r} is taken as free text{blurred}: name the preset {near!r} if you mean it "
            "(--list_concepts shows its prompts)",
            stacklevel=3,
        )


def list_concepts() -> str:
    """The presets with their prompts and anchors, for `--list_concepts`."""
    lines = []
    for name, (pairs, held_out, unsafe) in PRESETS.items():
        lines.append(f"{name}{':NAME' if '{}' in pairs[0][0] else ''}{'  (pictures are blurred)' if unsafe else ''}")
        lines += [f"    {prompt.format('NAME')}  ->  {anchor}" for prompt, anchor in pairs]
        lines += [f"    held out: {prompt.format('NAME')}  ->  {anchor}" for prompt, anchor in held_out]
    trained, apart = (", ".join(repr(t.format("TEXT")) for t in part) for part in (TEMPLATES, HELD_OUT))
    lines += ["any other text", f"    {trained}  ->  --anchor_concept", f"    held out: {apart}  ->  --anchor_concept"]
    return "\n".join(lines)
