"""Captions of the second emoji model: templates, synonyms and misspellings, and those that are kept out of training.

A caption has a kind, which says what of it differs from the plain "a noto emoji of a rocket": the sentence around it
(template), the word for the object (synonym, misspelling) or for the style. What is kept out is asked for only when a
model is judged: it tells whether a model understands words or knows captions by heart.
"""

from dataclasses import dataclass
from functools import cache

import torch

from hf_unlearn.evaluation.emoji import OBJECTS, STYLES, prompt_of

PLAIN = "a {style} emoji of a {thing}"  # as `prompt_of` has it
TEMPLATES = (
    "a {thing} in the {style} style",
    "a {style} icon of a {thing}",
    "a picture of a {thing}, {style}",
    "{thing}, {style} emoji",
    "draw a {thing} the way {style} does",
    "a small {thing} drawn by {style}",
    "{style} {thing}",
    "the {style} sticker that shows a {thing}",
)
# They name no style, so that any will do.
STYLELESS = ("{thing}", "a {thing}", "a picture of a {thing}", "an emoji of a {thing}", "draw a {thing}")
KEPT_TEMPLATES = (
    "a {style} picture of a {thing}",
    "please draw a {thing} as a {style} icon",
    "one {thing}, as on a {style} sticker",
    "an emoji that shows a {thing}, by {style}",
)
STYLE_WORDS = {  # (other names, misspellings)
    "fluent": (("microsoft", "windows"), ("flunet", "fluennt")),
    "noto": (("google", "android"), ("notto", "notoo")),
    "twemoji": (("twitter", "tweet"), ("twemojy", "tweemoji")),
}


@dataclass(frozen=True)
class Words:
    """What an object is called beside its name; what is `kept` is not in the captions of training."""

    synonyms: tuple[str, ...]
    misspellings: tuple[str, ...]
    kept_synonyms: tuple[str, ...]
    kept_misspellings: tuple[str, ...]


def _words(synonyms: str, misspellings: str, kept_synonyms: str, kept_misspellings: str) -> Words:
    parts = (synonyms, misspellings, kept_synonyms, kept_misspellings)
    return Words(*(tuple(part.split(", ")) for part in parts))


# A kept synonym is made of words that training has; in a model of so few words no other can be understood.
WORDS = {
    "cat": _words("kitty, pussycat", "catt, caat", "pussycat kitty", "cta"),
    "butterfly": _words("moth, monarch", "buterfly, butterfy", "monarch moth", "buttefly"),
    "elephant": _words("jumbo, tusker", "elefant, elephent", "jumbo tusker", "elehpant"),
    "mushroom": _words("toadstool, fungus", "mushrom, mushroon", "toadstool fungus", "mushorom"),
    "rose": _words("red flower, blossom", "rosse, roze", "rose blossom", "rosee"),
    "banana": _words("plantain, yellow fruit", "bananna, banan", "plantain banana", "baanna"),
    "carrot": _words("orange root, root vegetable", "carot, carrott", "orange vegetable root", "carrto"),
    "pineapple": _words("ananas, tropical fruit", "pinapple, pineaple", "tropical ananas", "pineappel"),
    "box of fries": _words("chips, french fries", "box of frys, box of friez", "box of chips", "box of fires"),
    "doughnut": _words("donut, ring cake", "dougnut, doughnutt", "donut ring", "doughnt"),
    "birthday cake": _words("torte, candle cake", "birtday cake, birthday cak", "candle torte", "brithday cake"),
    "rocket": _words("spaceship, spacecraft", "roket, rockett", "spaceship rocket", "rokcet"),
    "sailboat": _words("yacht, sailing boat", "salboat, sailbot", "sailing yacht", "saliboat"),
    "car": _words("automobile, sedan", "carr, caar", "sedan automobile", "cra"),
    "castle": _words("fortress, citadel", "castel, casle", "citadel fortress", "caslte"),
    "guitar": _words("string instrument, six string", "gitar, guitarr", "six string instrument", "guiatr"),
    "basketball": _words("orange ball, hoop ball", "basketbal, baskeball", "orange hoop ball", "bsaketball"),
    "snowman": _words("frosty, snow figure", "snowmann, snoman", "frosty snow figure", "sonwman"),
    "christmas tree": _words("xmas tree, decorated fir", "chrismas tree, christmas tre", "xmas fir", "chirstmas tree"),
    "gem": _words("diamond, jewel", "gemm, jem", "diamond jewel", "geem"),
    "high-heeled shoe": _words(
        "stiletto, pump", "high-heeled sho, high heeled shoo", "stiletto pump", "hihg-heeled shoe"
    ),
    "bell": _words("chime, ringer", "bel, belll", "chime ringer", "blel"),
    "green apple": _words(
        "granny smith, unripe apple", "green aple, gren apple", "unripe granny smith", "geren apple"
    ),
    "umbrella": _words("parasol, brolly", "umbrela, umbrellla", "parasol brolly", "umberlla"),
}
KINDS = ("plain", "template", "synonym", "misspelling", "style word", "style misspelling", "no style")
KEPT_KINDS = ("kept template", "kept synonym", "kept misspelling")
WEIGHTS = (0.35, 0.25, 0.12, 0.1, 0.06, 0.04, 0.08)  # share of each of `KINDS` in training


@cache
def captions_of(kind: str, style: str, thing: str) -> list[str]:
    """All captions of a kind of one style and object.

    Synonyms, misspellings and other names of styles stand in the plain sentence and, in training, in each template.
    """
    words, (style_words, style_misspellings) = WORDS[thing], STYLE_WORDS[style]
    sentences = (PLAIN, *TEMPLATES)
    made = {
        "plain": [prompt_of(style, thing)],
        "template": _fill(TEMPLATES, [style], [thing]),
        "synonym": _fill(sentences, [style], words.synonyms),
        "misspelling": _fill(sentences, [style], words.misspellings),
        "style word": _fill(sentences, style_words, [thing]),
        "style misspelling": _fill(sentences, style_misspellings, [thing]),
        "no style": _fill(STYLELESS, [style], [thing, *words.synonyms, *words.misspellings]),
        "kept template": _fill(KEPT_TEMPLATES, [style], [thing]),
        "kept synonym": _fill([PLAIN], [style], words.kept_synonyms),
        "kept misspelling": _fill([PLAIN], [style], words.kept_misspellings),
    }
    return made[kind]


def _fill(sentences, styles, things) -> list[str]:
    return [text.format(style=style, thing=thing) for text in sentences for style in styles for thing in things]


def names_of(thing: str) -> dict[str, tuple[str, ...]]:
    """Every word for an object by kind, without its name."""
    words = WORDS[thing]
    return {
        "synonym": words.synonyms,
        "misspelling": words.misspellings,
        "kept synonym": words.kept_synonyms,
        "kept misspelling": words.kept_misspellings,
    }


def drawn(styles: list[str], things: list[str], generator: torch.Generator) -> list[str]:
    """A random caption of training for each style and object: its kind by `WEIGHTS`, then one of that kind."""
    kinds = torch.multinomial(torch.tensor(WEIGHTS), len(styles), replacement=True, generator=generator).tolist()
    chances = torch.rand(len(styles), generator=generator).tolist()
    captions = []
    for kind, style, thing, chance in zip(kinds, styles, things, chances, strict=True):
        every = captions_of(KINDS[kind], style, thing)
        captions.append(every[int(chance * len(every))])
    return captions


def asked(kinds, per_pair: int, styles=STYLES, things=OBJECTS) -> list[tuple[str, str, str, str]]:
    """(kind, style, object, caption) for judging: `per_pair` of each kind, style and object, evenly spread."""
    rows = []
    for kind in kinds:
        for style in styles:
            for thing in things:
                every = captions_of(kind, style, thing)
                count = min(per_pair, len(every))
                rows += [(kind, style, thing, every[i * len(every) // count]) for i in range(count)]
    return rows
