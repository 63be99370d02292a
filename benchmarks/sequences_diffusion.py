"""Sequences of requests on the shipped diffusion models: prints the diffusion tables of docs/sequences.md.

    python benchmarks/sequences_diffusion.py emoji                    twelve objects and styles, one after another
    python benchmarks/sequences_diffusion.py emoji --match last --no_hold --requests 6      without remedies
    python benchmarks/sequences_diffusion.py learn --data_dir FOLDER  forget objects, learn them from three pictures
    python benchmarks/sequences_diffusion.py digits                   forget a digit, learn it again, forget another

After every request all that the model draws is read by the shipped classifiers. A run that is killed goes on where it
was, and a finished one only prints. No order, object or seed of these was tuned on.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from sequences_readings import READ, digits_table, emoji_aims, emoji_table, learn_table, plot

from hf_unlearn.common.files import write_text
from hf_unlearn.evaluation import stamp

RESULTS = Path(__file__).parent / "results/sequences_diffusion.json"

# Objects and a style that no default of the package was chosen on.
EMOJI = (
    ("butterfly", "rose"),
    ("banana", "carrot"),
    ("car", "sailboat"),
    ("umbrella", "christmas tree"),
    ("basketball", "green apple"),
    ("fluent", "twemoji"),
    ("rose", "christmas tree"),
    ("box of fries", "carrot"),
    ("high-heeled shoe", "sailboat"),
    ("green apple", "carrot"),
    ("birthday cake", "christmas tree"),
    ("christmas tree", "carrot"),
)
# "-" forgets an object, "+" learns one again from a picture in each style: in turn, at once, and forgotten once more.
LEARN: tuple[dict[str, str], ...] = (
    {"-": "car"},
    {"-": "banana"},
    {"-": "butterfly", "+": "car"},
    {"+": "banana"},
    {"-": "umbrella"},
    {"-": "car"},
)
DIGITS = ("-0", "-5", "+0", "-6", "+5", "-2", "-9", "+6", "+2", "-5")  # "-" forgets a digit, "+" learns it again
DRAWING = {"num_inference_steps": 20, "guidance_scale": 3.0}


def emoji_requests() -> list[dict[str, Any]]:
    return [{"forget": {"concept": concept, "anchor": anchor}} for concept, anchor in EMOJI]


def learn_requests(data_dir: str | None, folder: Path) -> list[dict[str, Any]]:
    """Requests of LEARN; the pictures to learn from are written to `folder`, their prompts as captions."""
    from emoji_pictures import load_emoji

    anchors = dict(EMOJI)
    images, styles, things = load_emoji(data_dir)
    found = []
    for asked in LEARN:
        request: dict[str, Any] = {}
        if "-" in asked:
            request["forget"] = {"concept": asked["-"], "anchor": anchors[asked["-"]]}
        if "+" in asked:
            place = folder / asked["+"]
            written(place, asked["+"], images, styles, things)
            request["learn"] = {"concept": asked["+"], "images": str(place)}
        found.append(request)
    return found


def written(place: Path, thing: str, images: Any, styles: Any, things: Any) -> None:
    """Write the pictures of an object as a folder with captions."""
    from PIL import Image

    from hf_unlearn.evaluation.emoji import OBJECTS, STYLES, prompt_of

    place.mkdir(parents=True, exist_ok=True)
    rows = []
    for image, style in zip(images[things == OBJECTS.index(thing)], styles[things == OBJECTS.index(thing)].tolist()):
        pixels = ((image.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
        Image.fromarray(pixels).save(place / f"{STYLES[style]}.png")
        rows.append({"file_name": f"{STYLES[style]}.png", "text": prompt_of(STYLES[style], thing)})
    write_text(place / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def digits_requests() -> list[dict[str, Any]]:
    return [{"forget" if word[0] == "-" else "learn": {"classes": [int(word[1])]}} for word in DIGITS]


def painter_of(what: str) -> Any:
    from hf_unlearn import digits, load_ddpm_pipeline
    from hf_unlearn.evaluation import DIGITS_DDPM
    from hf_unlearn.evaluation.emoji import EMOJI_SD, OBJECTS, STYLES, prompt_of
    from hf_unlearn.families.latents import Drawing
    from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline
    from hf_unlearn.sequences.diffusion import ClassPainter, PromptPainter

    if what == "digits":
        return ClassPainter(load_ddpm_pipeline(str(DIGITS_DDPM)), digits())
    prompts = [prompt_of(style, thing) for style in STYLES for thing in OBJECTS]
    templates = [prompt_of(style, "{}") for style in STYLES]
    return PromptPainter(
        load_text_to_image_pipeline(str(EMOJI_SD)), prompts, templates, Drawing(**DRAWING, batch_size=24)
    )


def sequence_of(options: argparse.Namespace, folder: Path) -> Any:
    from hf_unlearn import UnlearnConfig
    from hf_unlearn.sequences import ReplayMemory
    from hf_unlearn.sequences.diffusion import DiffusionSequence

    emoji = options.what != "digits"
    steps, batch, pictures = (100, 16, 192) if emoji else (50, 64, 400)
    config = UnlearnConfig.quiet(
        output_dir=str(folder),
        max_steps=options.steps or steps,
        per_device_train_batch_size=batch,
        seed=options.seed,
        save_strategy="steps",
        save_steps=25,
        save_total_limit=1,
    )

    def reader(entry: Any, pipeline: Any, turn: Any) -> dict[str, Any]:
        return READ[options.what](pipeline, options.samples)

    return DiffusionSequence(
        painter_of(options.what),
        config,
        ReplayMemory(pictures, seed=options.seed),
        match=options.match,
        hold=not options.no_hold,
        forget_pictures=96 if emoji else 128,
        audit=reader,
    )


def described(sequence: Any, options: argparse.Namespace) -> dict[str, Any]:
    """What is kept of a run: the original's reading, and of each request what was asked, read and measured."""
    path = Path(options.folder) / f"original-{options.what}-{options.samples}.json"
    if not path.exists():
        write_text(path, json.dumps(READ[options.what](painter_of(options.what).pipeline, options.samples)))
    done = [
        {
            "request": told(entry.request),
            "read": {name: value for name, value in entry.figures.items() if name in ("pictures", "digits", "gone")}
            | {name: entry.figures[name] for name in ("objects", "styles", "kept") if name in entry.figures},
            **{name: entry.figures[name] for name in ("left", "drift")},
            "steps": entry.steps,
            "cpu": entry.times["cpu"],
        }
        for entry in sequence.ledger.done
    ]
    return {"stamp": stamp("torch", "diffusers"), "original": json.loads(path.read_text()), "requests": done}


def told(request: dict[str, Any]) -> dict[str, Any]:
    """A request without the place of its pictures on this machine."""
    learn = request.get("learn", {})
    if "images" not in learn:
        return request
    return {**request, "learn": {**learn, "images": f"pictures/{Path(learn['images']).name}"}}


def name_of(options: argparse.Namespace) -> str:
    return f"{options.what}-{options.match}-{'free' if options.no_hold else 'held'}-{options.seed}"


def in_words(name: str) -> str:
    """The label of a run in the picture."""
    _, match, hold, seed = name.split("-")
    how = {("first", "held"): "both remedies", ("last", "free"): "no remedy"}
    return f"{how.get((match, hold), f'{match} model, {hold}')}, seed {seed}"


def shown(name: str, kept: dict[str, Any]) -> str:
    """The Markdown of a run."""
    what, match, hold, seed = name.split("-")
    how = (
        f"retained outputs matched to the {match} model, forgotten prompts {'held' if hold == 'held' else 'not held'}"
    )
    table = {"emoji": emoji_table, "learn": learn_table, "digits": digits_table}[what](kept)
    aims = "\n".join(emoji_aims(kept)) + "\n" if what == "emoji" else ""
    model = {"emoji": "Emoji model", "learn": "Emoji model that learns again", "digits": "Digits DDPM"}[what]
    return f"### {model}: {how}\n\n{kept['stamp']}; seed {seed}.\n\n{table}\n\n{aims}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["emoji", "learn", "digits"])
    parser.add_argument("--data_dir", help="emoji pictures to learn from; rendered from npm packages by default")
    parser.add_argument("--requests", type=int, help="only the first ones")
    parser.add_argument("--match", choices=["first", "last"], default="first", help="which model is matched")
    parser.add_argument("--no_hold", action="store_true", help="do not hold forgotten prompts in later requests")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="outer steps of a request; by default 100 and 50")
    parser.add_argument("--samples", type=int, default=2, help="pictures of each prompt or digit that are read")
    parser.add_argument("--folder", default="sequences-diffusion", help="where runs are kept")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where readings are kept")
    parser.add_argument("--only_print", action="store_true", help="print what is kept in --output and in the ledger")
    parser.add_argument("--picture", help="also draw the course of all kept emoji runs to this file")
    options = parser.parse_args(argv)
    kept = json.loads(options.output.read_text()) if options.output.exists() else {}
    made = {
        "emoji": emoji_requests,
        "digits": digits_requests,
        "learn": lambda: learn_requests(options.data_dir, Path(options.folder) / "pictures"),
    }
    asked = made[options.what]()
    sequence = sequence_of(options, Path(options.folder) / name_of(options))
    if not options.only_print:
        sequence.run(asked[: options.requests])
    if sequence.ledger.done:
        kept[name_of(options)] = described(sequence, options)
        write_text(options.output, json.dumps(kept, sort_keys=True) + "\n")
    print("\n".join(shown(name, kept[name]) for name in sorted(kept)))
    if options.picture:
        plot({in_words(name): run for name, run in kept.items() if name.startswith("emoji")}, options.picture)


if __name__ == "__main__":
    main()
