"""The README's command on every object of the shipped model: prints a table of docs/tuning.md.

    python benchmarks/emoji_every.py --folder every                     # about three minutes of one core an object
    python benchmarks/emoji_every.py --folder every --more --use_lora   # with further flags of hf-unlearn sd

Nobody chooses anything: the anchor of an object is the next one in the model's list. Each row is a run with the
defaults as `hf-unlearn sd` makes it. What it says of itself stands beside what the shipped classifier reads: object
and anchor by the twelve wordings of emoji_untrained.py, objects and styles in two pictures of every other prompt. A
finished run is not made again, unless the code or the flags changed, and a reading is kept with the weights that it
is of; without the runs --only_print prints what is kept.

Strengths were chosen on rocket, guitar, snowman, gem, castle, bell and cat, wordings on rocket, car and high-heeled
shoe, and on the lengths of the twelve wordings too. On the other objects nothing was. --tuned adds the first seven.
The readings under "24 wordings" are of the default before that: the code that made them is gone.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from adapters_add_up import loaded as adapted
from emoji_untrained import read_wordings
from sequences_readings import beside, emoji_read, emoji_row

from hf_unlearn.common.files import write_text
from hf_unlearn.common.weights import model_digest
from hf_unlearn.evaluation import markdown_table, stamp
from hf_unlearn.evaluation.emoji import EMOJI_SD, OBJECTS, EmojiClassifier
from hf_unlearn.evaluation.metric import share_text
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline
from hf_unlearn.report.outcome import outcome
from hf_unlearn.report.reading import read_record
from hf_unlearn.saving.adapters import holds_adapter

TUNED = ("rocket", "guitar", "snowman", "gem", "castle", "bell", "cat")  # strengths were chosen on these
CHOSE = (*TUNED, "car", "high-heeled shoe")  # and wordings on these
RESULTS = Path(__file__).parent / "results/emoji_every.json"
DRAWN = ("--guidance_scale", "3", "--num_inference_steps", "20")
SHARES = ("concept_share_latents", "concept_share_latents_held_out", "anchor_share_latents")
HEADER = [
    "object",
    "anchor",
    "the run says",
    "its pictures",
    "held out",
    "by 12 wordings",
    "anchor by 12",
    "IRA",
    "CRA",
]


def anchor_of(thing: str) -> str:
    """The next object in the list, which is nobody's choice."""
    return OBJECTS[(OBJECTS.index(thing) + 1) % len(OBJECTS)]


def with_article(thing: str) -> str:
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def forgotten(thing: str, folder: Path, more: list[str]) -> None:
    """Run the command, which repeats nothing that is there."""
    asked = ["--concept", with_article(thing), "--anchor_concept", with_article(anchor_of(thing))]
    place = ["--pretrained_model_name_or_path", str(EMOJI_SD), "--output_dir", str(folder)]
    command = [sys.executable, "-m", "hf_unlearn", "sd", *asked, *place, *DRAWN, *more]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{thing}: {done.stderr[-2000:]}")


def loaded(folder: Path) -> Any:
    """The pipeline of a run."""
    return adapted({"default": str(folder)}) if holds_adapter(folder) else load_text_to_image_pipeline(str(folder))


def read(thing: str, folder: Path, pipeline: Any, judge: EmojiClassifier) -> dict[str, Any]:
    """What a run says of itself, and what the classifier reads in its pictures."""
    record = read_record(folder)
    after = record.figures["after"]
    rest = emoji_row(emoji_read(pipeline, 2), [thing])
    return {
        "weights": model_digest(pipeline),
        "says": outcome(record).state,
        "shares": {name: [after[name].value, after[name].samples] for name in SHARES if name in after},
        "wordings": read_wordings(pipeline, judge, thing),
        "anchor": read_wordings(pipeline, judge, anchor_of(thing)),
        "rest": {name: rest[name] for name in ("objects", "styles", "kept")},
        "seconds": record.cost.seconds,
    }


def row(thing: str, kept: dict[str, Any], first: dict[str, Any]) -> list[str]:
    counts = [kept["shares"].get(name) for name in SHARES[:2]]
    shown = ["" if one is None else f"{round(one[0] * one[1])} of {one[1]}" for one in counts]
    hits = [f"{sum(kept[name].values())} of 72" for name in ("wordings", "anchor")]
    return [
        thing,
        anchor_of(thing),
        kept["says"].lower(),
        *shown,
        *hits,
        *beside(kept["rest"], emoji_row(first, [thing])),
    ]


def summary(kept: dict[str, Any], first: dict[str, Any]) -> list[str]:
    """The table's rows in sentences: all of them, and those of objects on which nothing was chosen."""
    every = {"all": list(kept), "nothing was chosen on": [thing for thing in kept if thing not in CHOSE]}
    said = []
    for label, things in every.items():
        hits = [sum(kept[thing]["wordings"].values()) for thing in things]
        of, within = 72 * len(things), sum(count / 72 <= 0.05 for count in hits)
        share = f"{sum(hits)} of {of}, {share_text(sum(hits) / of, of)}" if of else "none"
        said.append(f"- Read as the object, {label}: {share}; at most 5 % of {within} of {len(things)}.")
    says = [one["says"].lower() for one in kept.values()]
    said.append("- The runs say " + ", ".join(f"{state} {says.count(state)}" for state in sorted(set(says))) + ".")
    rows = [emoji_row(first, [thing]) for thing in kept]
    sums = [
        {name: sum(row[name] for row in part) for name in ("objects", "styles", "kept")}
        for part in ([one["rest"] for one in kept.values()], rows)
    ]
    return [*said, f"- IRA, CRA (original): {', '.join(beside(*sums))}."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("emoji-every"), help="where the runs are kept")
    parser.add_argument("--objects", nargs="+", choices=OBJECTS, help="these alone")
    parser.add_argument("--tuned", action="store_true", help="also the objects that defaults were chosen on")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where readings are kept")
    parser.add_argument("--only_print", action="store_true", help="print what is kept")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="further flags of the command, last")
    options = parser.parse_args()
    every = json.loads(options.output.read_text()) if options.output.exists() else {}
    name = " ".join(options.more) or "defaults"
    kept = every.setdefault(name, {})
    judge = EmojiClassifier.from_pretrained(EMOJI_SD / "judge", use_safetensors=True).float().eval()
    if "original" not in every:
        every["original"] = emoji_read(adapted({}), 2)
    wanted = options.objects or [thing for thing in OBJECTS if options.tuned or thing not in TUNED]
    for thing in [] if options.only_print else wanted:
        folder = options.folder / thing.replace(" ", "-")
        forgotten(thing, folder, options.more)
        pipeline = loaded(folder)
        if kept.get(thing, {}).get("weights") != model_digest(pipeline):
            kept[thing] = read(thing, folder, pipeline, judge)
            write_text(options.output, json.dumps(every, sort_keys=True) + "\n")
    for label, found in every.items():
        if label != "original" and found:
            ordered = {thing: found[thing] for thing in OBJECTS if thing in found}
            rows = [row(thing, one, every["original"]) for thing, one in ordered.items()]
            said = "\n".join(summary(ordered, every["original"]))
            print(f"### {label}\n\n{stamp('torch', 'diffusers')}\n\n{markdown_table(HEADER, rows)}\n\n{said}\n")


if __name__ == "__main__":
    main()
