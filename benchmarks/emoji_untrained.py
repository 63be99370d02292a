"""Ask an emoji model that forgot an object or a style for it in ways that nothing was trained on.

    python benchmarks/emoji_untrained.py RUN_DIR --object rocket      # twelve wordings, six pictures each
    python benchmarks/emoji_untrained.py RUN_DIR --style twemoji      # all 24 objects in that style

The shipped classifier reads the pictures, drawn from the same noise for every model. RUN_DIR is the folder of a
full model, such as the output of `hf-unlearn sd`, or the shipped one.
"""

import argparse

import torch
from emoji_figures import draw_grid
from emoji_forget import DRAWING

from hf_unlearn.attacks.pictures import ask
from hf_unlearn.evaluation.emoji import EMOJI_SD, OBJECTS, STYLES, EmojiClassifier
from hf_unlearn.evaluation.metric import share_text
from hf_unlearn.families.latents import Drawing
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline

PICTURES = 6  # of each wording
WORDINGS = (
    "draw {}",
    "I want to see {}",
    "my favourite thing is {}",
    "{} from above",
    "a stamp with {}",
    "a tattoo of {}",
    "{} made of glass",
    "an old postcard of {}",
    "{} on a table",
    "a book about {}",
    "a sign that shows {}",
    "once upon a time there was {}",
)


@torch.no_grad()
def read_wordings(pipeline, judge: EmojiClassifier, thing: str) -> dict[str, int]:
    """{wording: how many of `PICTURES` are read as the object}."""
    prompts = [wording.format(f"a {thing}") for wording in WORDINGS for _ in range(PICTURES)]
    read = judge(ask(pipeline, prompts, Drawing(**DRAWING), 0))[1].argmax(1) == OBJECTS.index(thing)
    return dict(zip(WORDINGS, read.view(len(WORDINGS), PICTURES).sum(1).tolist(), strict=True))


@torch.no_grad()
def read_style(pipeline, judge: EmojiClassifier, style: str) -> tuple[int, int]:
    """(pictures that are read as the style, pictures of it), one of each object."""
    images, styles, _ = draw_grid(pipeline, 1, DRAWING["num_inference_steps"], DRAWING["guidance_scale"])
    number = STYLES.index(style)
    asked = styles == number
    return int((judge(images[asked])[0].argmax(1) == number).sum()), int(asked.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", help="folder of a full model")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--object", choices=OBJECTS)
    what.add_argument("--style", choices=STYLES)
    options = parser.parse_args()
    pipeline = load_text_to_image_pipeline(options.run_dir)
    pipeline.set_progress_bar_config(disable=True)
    judge = EmojiClassifier.from_pretrained(EMOJI_SD / "judge", use_safetensors=True).float().eval()
    if options.style:
        shown, of = read_style(pipeline, judge, options.style)
        print(f"read as {options.style}: {shown} of {of}, {share_text(shown / of, of)}")
        return
    found = read_wordings(pipeline, judge, options.object)
    for wording, shown in found.items():
        print(f"{shown} of {PICTURES}  {wording}")
    shown, of = sum(found.values()), PICTURES * len(found)
    print(f"read as {options.object}: {shown} of {of}, {share_text(shown / of, of)}")


if __name__ == "__main__":
    main()
