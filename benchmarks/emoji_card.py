"""Forget one style or object of the emoji model with SFR-on and save the result with its card and picture.

    python benchmarks/emoji_card.py --output_dir emoji-sd-without-rocket

The recipe, the data and the figures are those of emoji_forget.py, of which this is one cell that is kept.
"""

import argparse
from pathlib import Path
from types import SimpleNamespace

from emoji_forget import DRAWING, STYLE, THING, draw, judged, prompts_of, shown, trained


def metrics(figures: dict, kind: str, count: int) -> dict:
    """UnlearnCanvas's figures as a record has them."""
    from hf_unlearn.evaluation.emoji import OBJECTS, STYLES
    from hf_unlearn.evaluation.metric import Metric, version_of

    every = len(STYLES) * len(OBJECTS)
    gone = prompts_of(kind)
    other = "object" if kind == "style" else "style"
    steps, guidance = DRAWING["num_inference_steps"], DRAWING["guidance_scale"]
    library = version_of("torch", "diffusers")

    def metric(value: float, text: str, prompts: int) -> Metric:
        drawn = f"Pictures of {prompts} prompts, {count} each, read by the emoji judge"
        about = f"{drawn}; {steps} DDIM steps, guidance {guidance}."
        details = {"scheduler": "DDIMScheduler", **DRAWING, "seed": 0}
        return Metric(value, f"{text}. {about}", prompts * count, library, details)

    kept = every - gone
    texts = {
        "forget_accuracy": (1 - figures["UA"], f"Share read as the {kind} that was asked for and is forgotten", gone),
        "in_domain_retain_accuracy": (figures["IRA"], f"Share of the others read as the {kind} asked for", kept),
        "cross_domain_retain_accuracy": (figures["CRA"], f"Share of the others read as the {other} asked for", kept),
        "frechet_distance": (
            figures["frechet"],
            "Frechet distance of the others to real ones (judge)",
            kept,
        ),
    }
    return {name: metric(*text) for name, text in texts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--forget", choices=["style", "object"], default="object", help=f"{STYLE[1]} or {THING[1]}")
    parser.add_argument("--data_dir", default="", help="folder of STYLE_64.npz files; default: render from npm")
    parser.add_argument("--samples_per_prompt", type=int, default=12)
    options = parser.parse_args()
    from emoji_pictures import check_emoji

    check_emoji(parser, options.data_dir)
    from hf_unlearn.cli.finish import finish
    from hf_unlearn.evaluation.emoji import EMOJI_SD
    from hf_unlearn.evaluation.tables import metric_table
    from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline
    from hf_unlearn.report.recording import record_run

    model, target, count = str(EMOJI_SD), STYLE if options.forget == "style" else THING, options.samples_per_prompt
    Path(options.output_dir).mkdir(parents=True, exist_ok=True)
    figures, grids = {}, {}
    pipeline, trainer, _ = trained(model, "sfron, no rate", *target, 0, None, options.output_dir)
    trainer.save_model()
    for name, drawn in (("before", load_text_to_image_pipeline(model)), ("after", pipeline)):
        found, pictures = judged(drawn, model, options.data_dir, *target, count)
        figures[name], grids[name] = metrics(found, target[0], count), shown(pictures, count)
    draw(grids, target, f"{options.output_dir}/before_after.png")
    source = {part: "drawn by the original model" for part in ("forget", "retain")}
    record = record_run(trainer, f"the {target[0]} {target[1]}", figures, model, None, source)
    training = SimpleNamespace(output_dir=options.output_dir, push_masks=False)
    finish(training, None, record, metric_table(figures), trainer)


if __name__ == "__main__":
    main()
