"""Sequences of requests on the shipped diffusion models: prints the diffusion tables of docs/sequences.md.

    python benchmarks/sequences_diffusion.py emoji                    twelve objects and styles, one after another
    python benchmarks/sequences_diffusion.py emoji --match last --no_hold --requests 6      without remedies
    python benchmarks/sequences_diffusion.py digits                   forget a digit, learn it again, forget another

After every request all that the model draws is read by the shipped classifiers. A run that is killed goes on where it
was, and a finished one only prints. No order, object or seed of these was tuned on.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

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
DIGITS = ("-0", "-5", "+0", "-6", "+5", "-2", "-9", "+6", "+2", "-5")  # "-" forgets a digit, "+" learns it again
DRAWING = {"num_inference_steps": 20, "guidance_scale": 3.0}


def emoji_requests() -> list[dict[str, Any]]:
    return [{"forget": {"concept": concept, "anchor": anchor}} for concept, anchor in EMOJI]


def digits_requests() -> list[dict[str, Any]]:
    return [{"forget" if word[0] == "-" else "learn": {"classes": [int(word[1])]}} for word in DIGITS]


def emoji_reader(per_prompt: int):
    """Audit: {read: {thing: [right, pictures]} of forgotten ones, [right, right, pictures] of the rest}."""
    import torch
    from emoji_figures import draw_grid

    from hf_unlearn.evaluation.emoji import EMOJI_SD, OBJECTS, STYLES, EmojiClassifier

    judge = EmojiClassifier.from_pretrained(EMOJI_SD / "judge", use_safetensors=True, torch_dtype=torch.float32).eval()

    @torch.no_grad()
    def read(entry: Any, pipeline: Any, turn: Any) -> dict[str, Any]:
        images, styles, things = draw_grid(pipeline, per_prompt, **{"steps": 20, "guidance": 3.0})
        style, thing = (torch.cat(part).argmax(1) for part in zip(*(judge(batch) for batch in images.split(256))))
        asked = [concept for concept, _ in EMOJI[: entry.number]]
        gone, kept = {}, torch.ones(len(images), dtype=torch.bool)
        for name in asked:
            own, found, number = (
                (styles, style, STYLES.index(name)) if name in STYLES else (things, thing, OBJECTS.index(name))
            )
            rows = own == number
            gone[name] = [int((found[rows] == number).sum()), int(rows.sum())]
            kept &= ~rows
        right = [int((found == own)[kept].sum()) for found, own in ((thing, things), (style, styles))]
        # the original, whose pictures of the same prompts and noise are read once
        return {"gone": gone, "objects": right[0], "styles": right[1], "kept": int(kept.sum())}

    return read


def digits_reader(per_class: int):
    """Audit: {digit: how many of its samples are read as it}."""
    from hf_unlearn.evaluation import SamplingConfig, digits_judge
    from hf_unlearn.evaluation.generation import sample_classes

    judge = digits_judge()

    def read(entry: Any, pipeline: Any, turn: Any) -> dict[str, Any]:
        config = SamplingConfig(samples_per_class=per_class)
        images = sample_classes(pipeline, list(range(10)), config)
        found = judge(images)
        found = (found.logits if hasattr(found, "logits") else found).argmax(1).reshape(10, per_class)
        return {"digits": [int((row == digit).sum()) for digit, row in enumerate(found)]}

    return read


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

    emoji = options.what == "emoji"
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
    reader = emoji_reader(options.samples) if emoji else digits_reader(options.samples)
    return DiffusionSequence(
        painter_of(options.what),
        config,
        ReplayMemory(pictures, seed=options.seed),
        match=options.match,
        hold=not options.no_hold,
        forget_pictures=96 if emoji else 128,
        audit=reader,
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["emoji", "digits"])
    parser.add_argument("--requests", type=int, help="only the first ones")
    parser.add_argument(
        "--match", choices=["first", "last"], default="first", help="what is retained is matched to it"
    )
    parser.add_argument("--no_hold", action="store_true", help="do not hold forgotten prompts in later requests")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="outer steps of a request; by default 100 and 50")
    parser.add_argument(
        "--samples", type=int, default=3, help="pictures of each prompt, or of each digit, that are read"
    )
    parser.add_argument("--folder", default="sequences-diffusion", help="where runs are kept")
    options = parser.parse_args(argv)
    name = f"{options.what}-{options.match}-{'free' if options.no_hold else 'held'}-{options.seed}"
    sequence = sequence_of(options, Path(options.folder) / name)
    asked = emoji_requests() if options.what == "emoji" else digits_requests()
    ledger = sequence.run(asked[: options.requests])
    for entry in ledger.done:
        print(
            entry.number, entry.asked.text, entry.steps, f"{entry.times['cpu']:.0f} s", entry.figures, file=sys.stderr
        )


if __name__ == "__main__":
    main()
