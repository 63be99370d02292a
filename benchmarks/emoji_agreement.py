"""Whether a reading in a pipeline's own latents says what a trained classifier says, picture by picture.

    python benchmarks/emoji_agreement.py             # about 40 minutes on 1 core
"""

import argparse
import os
import tempfile
from pathlib import Path

import emoji_forget as recipe
import torch
from torch import Tensor

SEEDS = 12  # pictures a prompt; an object has three prompts
# (row of emoji_forget, batch gradients) of each object; None is the original.
FULL, CROSS, ESD, ASCENT = "sfron, all weights", "sfron", "esd-x", "gradient_ascent"
MODELS = {
    "rocket": [None, (CROSS, 200), (FULL, 200), (FULL, 16), (ESD, 200)],
    "guitar": [None, (FULL, 200), (FULL, 12), (ESD, 100)],
    "snowman": [None, (CROSS, 200), (FULL, 200), (FULL, 12), (FULL, 20), (ESD, 200), (ASCENT, 200)],
    "castle": [None, (CROSS, 200), (FULL, 200), (FULL, 16), (CROSS, 60), (ESD, 100)],
}
TUNED_ON = ("rocket", "guitar")


@torch.no_grad()
def drawn(pipeline, prompts, seeds) -> dict[str, Tensor]:
    pipeline.set_progress_bar_config(disable=True)
    parts = []
    for start in range(0, len(prompts), 36):
        part = slice(start, start + 36)
        made = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
        options = {k: v for k, v in recipe.DRAWING.items() if k != "batch_size"}
        parts.append(pipeline(prompts[part], generator=made, output_type="latent", **options).images)
    final = torch.cat(parts)
    vae = pipeline.vae
    pictures = vae.decode(final / vae.config.scaling_factor).sample.clamp(-1, 1)
    pictures = ((pictures + 1) * 127.5).round() / 127.5 - 1  # as a PNG holds them
    from hf_unlearn.families.latents import posterior_mean

    return {"final": final, "encoded": posterior_mean(vae, pictures), "pictures": pictures}


def kept(folder: Path, name: str, make) -> dict[str, Tensor]:
    path = folder / f"{name}.pt"
    if not path.exists():
        torch.save(make(), path)
    return torch.load(path, weights_only=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default=os.path.join(tempfile.gettempdir(), "emoji-agreement"))
    options = parser.parse_args()
    from transformers.utils import logging

    from hf_unlearn.evaluation.emoji import EMOJI_SD, OBJECTS, EmojiClassifier
    from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    folder = Path(options.folder)
    folder.mkdir(exist_ok=True, parents=True)
    judge = EmojiClassifier.from_pretrained(EMOJI_SD / "judge", use_safetensors=True, torch_dtype=torch.float32).eval()
    original = load_text_to_image_pipeline(str(EMOJI_SD))
    for thing, models in MODELS.items():
        concept, retain = recipe.concept_of("object", thing)
        prompts = [p for p in concept.prompts for _ in range(SEEDS)]
        anchors = [p for p in concept.anchors for _ in range(SEEDS)]
        seeds = [3_000_000 + i for i in range(len(prompts))]
        kept(folder, f"{thing}-anchor", lambda: drawn(original, anchors, seeds))
        others = [retain[(i * 7) % len(retain)] for i in range(36)]
        kept(folder, f"{thing}-retain", lambda: drawn(original, others, [6_000_000 + i for i in range(36)]))
        for chosen in models:
            def make():
                if chosen is None:
                    return drawn(original, prompts, seeds)
                row, budget = chosen
                with tempfile.TemporaryDirectory() as out:
                    pipeline = recipe.trained(str(EMOJI_SD), row, "object", thing, 0, None, out, budget)[0]
                return drawn(pipeline, prompts, seeds)

            name = "original" if chosen is None else f"{chosen[0]} {chosen[1]}".replace(" ", "_").replace(",", "")
            found = kept(folder, f"{thing}-{name}", make)
            with torch.no_grad():
                shows = judge(found["pictures"])[1].argmax(1) == OBJECTS.index(thing)
            print(thing, name, f"{shows.float().mean():.3f}", flush=True)


if __name__ == "__main__":
    main()
