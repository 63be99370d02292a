"""The README's command on every object of the shipped model: prints a table of docs/tuning.md.

    python benchmarks/emoji_every.py --folder every                     # about three minutes of one core an object
    python benchmarks/emoji_every.py --folder every --more --use_lora   # with further flags of hf-unlearn sd

Nobody chooses anything: the anchor of an object is the next one in the model's list. Each row is a run with the
defaults as `hf-unlearn sd` makes it. What it says of itself stands beside what the shipped classifier reads: object
and anchor by the twelve wordings of emoji_untrained.py, objects and styles in two pictures of every other prompt. A
finished row is kept, so that a run that is killed goes on. No default was chosen on these objects, but on rocket,
guitar, snowman, gem, castle, bell and cat; --tuned adds those.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from emoji_untrained import read_wordings
from sequences_readings import emoji_read, emoji_row

from hf_unlearn.common.files import write_text
from hf_unlearn.evaluation import markdown_table, stamp
from hf_unlearn.evaluation.emoji import EMOJI_SD, OBJECTS, EmojiClassifier
from hf_unlearn.evaluation.metric import share_text
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline
from hf_unlearn.report.outcome import outcome
from hf_unlearn.report.reading import read_record
from hf_unlearn.saving.adapters import holds_adapter, load_adapter

TUNED = ("rocket", "guitar", "snowman", "gem", "castle", "bell", "cat")  # what defaults were chosen on
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
    """Run the command, unless it has been run."""
    if (folder / "unlearning_report.json").is_file():
        return
    asked = ["--concept", with_article(thing), "--anchor_concept", with_article(anchor_of(thing))]
    place = ["--pretrained_model_name_or_path", str(EMOJI_SD), "--output_dir", str(folder)]
    command = [sys.executable, "-m", "hf_unlearn", "sd", *asked, *place, *DRAWN, *more]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{thing}: {done.stderr[-2000:]}")


def loaded(folder: Path | None) -> Any:
    """The shipped pipeline, or that of a run."""
    if folder is not None and not holds_adapter(folder):
        return load_text_to_image_pipeline(str(folder))
    pipeline = load_text_to_image_pipeline(str(EMOJI_SD))
    if folder is not None:
        load_adapter(pipeline, folder)
    return pipeline


def read(thing: str, folder: Path, judge: EmojiClassifier) -> dict[str, Any]:
    """What a run says of itself, and what the classifier reads in its pictures."""
    record, pipeline = read_record(folder), loaded(folder)
    pipeline.set_progress_bar_config(disable=True)
    after = record.figures["after"]
    rest = emoji_row(emoji_read(pipeline, 2), [thing])
    return {
        "says": outcome(record).state,
        "shares": {name: [after[name].value, after[name].samples] for name in SHARES if name in after},
        "wordings": read_wordings(pipeline, judge, thing),
        "anchor": read_wordings(pipeline, judge, anchor_of(thing)),
        "rest": [rest["objects"], rest["styles"], rest["kept"]],
        "seconds": record.cost.seconds,
    }


def row(thing: str, kept: dict[str, Any], first: dict[str, Any]) -> list[str]:
    counts = [kept["shares"].get(name) for name in SHARES[:2]]
    shown = ["" if one is None else f"{round(one[0] * one[1])} of {one[1]}" for one in counts]
    before = emoji_row(first, [thing])
    rest = [
        f"{100 * now / kept['rest'][2]:.1f} ({100 * before[part] / before['kept']:.1f})"
        for now, part in zip(kept["rest"], ("objects", "styles"))
    ]
    hits = [f"{sum(kept[name].values())} of 72" for name in ("wordings", "anchor")]
    return [thing, anchor_of(thing), kept["says"].lower(), *shown, *hits, *rest]


def summary(kept: dict[str, Any], first: dict[str, Any]) -> list[str]:
    """The table's rows in sentences."""
    hits = {thing: sum(one["wordings"].values()) for thing, one in kept.items()}
    of = 72 * len(hits)
    within = sum(count / 72 <= 0.05 for count in hits.values())
    says = [one["says"] for one in kept.values()]
    rest = [
        sum(one["rest"][k] for one in kept.values()) / sum(one["rest"][2] for one in kept.values()) for k in (0, 1)
    ]
    rows = [emoji_row(first, [thing]) for thing in kept]
    before = [sum(one[part] for one in rows) / sum(one["kept"] for one in rows) for part in ("objects", "styles")]
    honest = sum(one["says"] != "FORGOTTEN" for thing, one in kept.items() if hits[thing] / 72 > 0.05)
    return [
        f"- Read as the object: {share_text(sum(hits.values()) / of, of)}; at most 5 % of {within} of {len(hits)}.",
        "- The runs say " + ", ".join(f"{state.lower()} {says.count(state)}" for state in sorted(set(says))) + "; "
        f"of the {len(hits) - within} above 5 % {honest} do not say forgotten.",
        f"- IRA {100 * rest[0]:.1f} ({100 * before[0]:.1f}), CRA {100 * rest[1]:.1f} ({100 * before[1]:.1f}).",
    ]


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
        every["original"] = emoji_read(loaded(None), 2)
    wanted = options.objects or [thing for thing in OBJECTS if options.tuned or thing not in TUNED]
    for thing in [] if options.only_print else wanted:
        if thing not in kept:
            folder = options.folder / thing.replace(" ", "-")
            forgotten(thing, folder, options.more)
            kept[thing] = read(thing, folder, judge)
            write_text(options.output, json.dumps(every, sort_keys=True) + "\n")
    for label, found in every.items():
        if label != "original" and found:
            ordered = {thing: found[thing] for thing in OBJECTS if thing in found}
            rows = [row(thing, one, every["original"]) for thing, one in ordered.items()]
            said = "\n".join(summary(ordered, every["original"]))
            print(f"### {label}\n\n{stamp('torch', 'diffusers')}\n\n{markdown_table(HEADER, rows)}\n\n{said}\n")


if __name__ == "__main__":
    main()
