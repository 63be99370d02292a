"""Whether a reading in a pipeline's own latents says what a trained classifier says, picture by picture.

    python benchmarks/emoji_agreement.py        # about 30 minutes on 1 core

Models of several methods and strengths forget an object or a style of the emoji model. Each of their pictures is read
by the shipped classifier and by candidates for `concept_share_latents`. `TUNED_ON` chose the candidate, the rest says
how good it is. Pictures are kept in --folder, and an interrupted run goes on.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import emoji_forget as recipe
import torch
from torch import Tensor

FULL, CROSS, ESD, ASCENT = "sfron, all weights", "sfron", "esd-x", "gradient_ascent"
# what is forgotten -> (row of emoji_forget, batch gradients) of each model; few gradients forget in part.
MODELS: dict[tuple[str, str], list[tuple[str, int]]] = {
    ("object", "rocket"): [(CROSS, 200), (CROSS, 24), (FULL, 200), (FULL, 16), (FULL, 8), (ESD, 200)],
    ("object", "guitar"): [(FULL, 200), (FULL, 12), (ESD, 100)],
    ("object", "snowman"): [(CROSS, 200), (FULL, 200), (FULL, 12), (FULL, 20), (ESD, 200), (ASCENT, 200)],
    ("object", "castle"): [(CROSS, 200), (CROSS, 60), (FULL, 200), (FULL, 16), (FULL, 8), (ESD, 100)],
    ("object", "cat"): [(CROSS, 200), (CROSS, 24), (FULL, 200), (FULL, 10), (ESD, 60)],
    ("object", "bell"): [(CROSS, 200), (FULL, 200), (FULL, 10), (FULL, 14), (ESD, 60)],
    ("style", "noto"): [(CROSS, 200), (FULL, 200), (FULL, 40)],
}
TUNED_ON = ("rocket", "guitar", "snowman", "castle")
SEEDS = {"object": 12, "style": 2}  # pictures a prompt; an object has 3 prompts, a style 24
RETAINED = 36
CHOSEN = "same seed"  # what hf_unlearn.evaluation.concept_share measures


@torch.no_grad()
def drawn(pipeline: Any, prompts: list[str], seeds: list[int]) -> dict[str, Tensor]:
    """Latents as sampling ends, the pictures, and the latents that the VAE makes of the pictures."""
    from hf_unlearn.families.latents import posterior_mean

    pipeline.set_progress_bar_config(disable=True)
    options = {name: value for name, value in recipe.DRAWING.items() if name != "batch_size"}
    parts = []
    for start in range(0, len(prompts), 36):
        part = slice(start, start + 36)
        noise = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
        parts.append(pipeline(prompts[part], generator=noise, output_type="latent", **options).images)
    final, vae = torch.cat(parts), pipeline.vae
    pictures = vae.decode(final / vae.config.scaling_factor).sample.clamp(-1, 1)
    pictures = ((pictures + 1) * 127.5).round() / 127.5 - 1  # as a PNG holds them
    return {"final": final, "encoded": posterior_mean(vae, pictures), "pictures": pictures}


def kept(path: Path, make: Any) -> dict[str, Tensor]:
    """What `make()` returned when `path` was first asked for."""
    if not path.exists():
        torch.save(make(), path)
    return torch.load(path, weights_only=True)


def pictures_of(folder: Path, kind: str, name: str) -> dict[str, dict[str, Tensor]]:
    """`drawn` of the original under the concept, the anchor and retained prompts, and of every model."""
    from hf_unlearn.evaluation.emoji import EMOJI_SD
    from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline

    concept, retain = recipe.concept_of(kind, name)
    prompts, anchors = ([p for p in part for _ in range(SEEDS[kind])] for part in (concept.prompts, concept.anchors))
    seeds = [3_000_000 + i for i in range(len(prompts))]

    def unlearned(row: str, budget: int) -> dict[str, Tensor]:
        with tempfile.TemporaryDirectory() as out:
            pipeline = recipe.trained(str(EMOJI_SD), row, kind, name, 0, None, out, budget)[0]
        return drawn(pipeline, prompts, seeds)

    original = load_text_to_image_pipeline(str(EMOJI_SD))
    others = [retain[(i * 7) % len(retain)] for i in range(RETAINED)]
    found = {}
    for label, texts, numbers in (
        ("original", prompts, seeds),
        ("anchor", anchors, seeds),
        ("retain", others, [6_000_000 + i for i in range(RETAINED)]),
    ):
        path = folder / f"{name}-{label}.pt"
        found[label] = kept(path, lambda texts=texts, numbers=numbers: drawn(original, texts, numbers))
    for row, budget in MODELS[kind, name]:
        path = folder / f"{name}-{row.replace(', ', '_').replace(' ', '_')}_{budget}.pt"
        found[f"{row}, {budget} gradients"] = kept(path, lambda row=row, budget=budget: unlearned(row, budget))
    return found


def discriminant(original: Any, x: Tensor, per: int) -> Tensor:
    """A ridge regression of concept against anchor and retained pictures, trained without the pictures' own seeds."""
    x, seed = x.double().flatten(1), torch.arange(len(x)) % per
    shows = torch.zeros(len(x), dtype=torch.bool)
    for own in range(per):
        positive = original.concept[seed != own]
        negative = torch.cat([original.anchor[seed != own], original.retained])
        rows = torch.cat([positive, negative])
        sides = [torch.full((len(part),), sign).double() for part, sign in ((positive, 1.0), (negative, -1.0))]
        weights = torch.cat([side.abs() / len(side) for side in sides])
        mean = (weights[:, None] * rows).sum(0) / 2
        kernel = (rows - mean) @ (rows - mean).T
        penalty = kernel.diagonal().mean() * torch.diag(2 / (weights * len(rows)))
        scores = (x[seed == own] - mean) @ (rows - mean).T @ torch.linalg.solve(kernel + penalty, torch.cat(sides))
        shows[seed == own] = scores > 0
    return shows


def readings(found: dict[str, dict[str, Tensor]], model: str, per: int) -> dict[str, Tensor]:
    """Which of the model's pictures show the concept, (N,) bool, by each candidate."""
    from hf_unlearn.evaluation.concept_share import ConceptLatents, shows_by_others, shows_concept

    texts = [i // per for i in range(len(found["original"]["encoded"]))]
    parts = {
        k: ConceptLatents(*(found[p][k] for p in ("original", "anchor", "retain")), texts)
        for k in ("encoded", "final")
    }
    original, x = parts["encoded"], found[model]["encoded"]
    flat = x.double().flatten(1)
    between = (flat - original.concept).norm(dim=1) < (flat - original.anchor).norm(dim=1)
    return {
        "concept or anchor, same seed": between,
        CHOSEN: shows_concept(original, x),
        "same seed, latents before decoding": shows_concept(parts["final"], found[model]["final"]),
        "other seeds": shows_by_others(original, x),
        "linear discriminant": discriminant(original, x, per),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default=os.path.join(tempfile.gettempdir(), "emoji-agreement"))
    options = parser.parse_args()
    from transformers.utils import logging

    from hf_unlearn.evaluation import markdown_table
    from hf_unlearn.evaluation.emoji import EMOJI_SD, OBJECTS, STYLES, EmojiClassifier
    from hf_unlearn.evaluation.metric import share_text

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    folder = Path(options.folder)
    folder.mkdir(exist_ok=True, parents=True)
    judge = EmojiClassifier.from_pretrained(EMOJI_SD / "judge", use_safetensors=True, torch_dtype=torch.float32).eval()
    agreed: dict[tuple[bool, str], list[Tensor]] = {}
    apart: dict[tuple[bool, str], list[float]] = {}
    rows = []
    for kind, name in MODELS:
        found = pictures_of(folder, kind, name)
        number, head = (STYLES.index(name), 0) if kind == "style" else (OBJECTS.index(name), 1)
        for model in [label for label in found if label not in ("anchor", "retain")]:
            with torch.no_grad():
                told = judge(found[model]["pictures"])[head].argmax(1) == number
            read = readings(found, model, SEEDS[kind])
            by = "other seeds" if model == "original" else CHOSEN
            shares = [share_text(part.double().mean().item(), len(part)) for part in (told, read[by])]
            rows.append([name, model, *shares, f"{(read[by] == told).double().mean():.1%}"])
            for candidate, shows in read.items() if model != "original" else ():
                place = (name in TUNED_ON, candidate)
                agreed.setdefault(place, []).append(shows == told)
                apart.setdefault(place, []).append(abs(shows.double().mean() - told.double().mean()).item())
    print(markdown_table(["forgotten", "model", "classifier", "in the latents", "agreement"], rows), "\n")
    lines = []
    for candidate in dict.fromkeys(candidate for _, candidate in agreed):
        cells = [candidate]
        for tuned in (True, False):
            every, gaps = torch.cat(agreed[tuned, candidate]).double(), apart[tuned, candidate]
            cells += [share_text(every.mean().item(), len(every)), f"{100 * sum(gaps) / len(gaps):.1f}"]
        lines.append(cells)
    print(markdown_table(["reading", "chosen on", "points apart", "others", "points apart"], lines))


if __name__ == "__main__":
    main()
