"""What keeping latents and prompt embeddings saves, and which share of a step loading data takes."""

import math
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import hf_unlearn
from hf_unlearn import SFRon
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.data.sources import load_images
from hf_unlearn.evaluation import markdown_table
from hf_unlearn.families.concepts import concept_of
from hf_unlearn.families.synthesis import concept_data

from .bare import WARM_UP, Pairs
from .page import Goal
from .phases import Phases
from .setting import Profile, build, images, scratch, spent, trainer_for

TITLE = "Cached latents and embeddings, and loading data"
EMOJI = Path(hf_unlearn.__file__).parent / "assets/emoji_sd"
LIMIT = 0.05  # of a step, for data


def measure(profile: Profile) -> dict[str, Any]:
    return {"latents": latents(profile), "loading": loading(profile)}


def latents(profile: Profile) -> dict[str, Any]:
    """An epoch of the shipped Stable Diffusion, whose data are encoded once, and what encoding them in each step, as
    released code does, would add: done in turns, on the prompts and as many images as the step takes."""
    pipeline = StableDiffusionPipeline.from_pretrained(EMOJI, use_safetensors=True)
    pixels = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    count, batch = (8, 2) if profile.name == "tiny" else (64, 8)
    method = SFRon(use_mask=False)
    concept = concept_of("a rocket", anchor="a star")
    with scratch() as folder:
        sources = [(plain_images(count, pixels, seed), None) for seed in (1, 2)]
        options = dict(forget=sources[0], retain=sources[1])
        first = spent(lambda: concept_data(pipeline, [concept], folder, **options))
        cached = spent(lambda: concept_data(pipeline, [concept], folder, **options))
        objective, forget, retain = concept_data(pipeline, [concept], folder, **options)
        steps = min(profile.pairs, math.ceil(len(forget) / batch)) + WARM_UP
        trainer = trainer_for(objective, method, batch, 0, folder, steps, data=(forget, retain))
        data = sources[0][0].pixel_values
        taken = data[torch.arange(batch * (1 + method.retain_steps)) % len(data)]
        texts = [concept.prompts[i % len(concept.prompts)] for i in range(len(taken))]

        @torch.no_grad()
        def encode() -> None:
            for images, prompts in zip(
                taken.split(batch), [texts[i : i + batch] for i in range(0, len(texts), batch)]
            ):
                pipeline.vae.encode(images)
                pipeline.encode_prompt(prompts, pipeline.device, 1, False)

        timed = Pairs(encode)
        trainer.add_callback(timed)
        trainer.train()
    epoch = math.ceil(len(forget) / batch)
    step = sum(s.clock for s in timed.ours) / len(timed.ours)
    encoding = sum(s.clock for s in timed.theirs) / len(timed.theirs)
    return {
        "steps": epoch,
        "with": epoch * step,
        "without": epoch * (step + encoding),
        "cpu_ratio": 1 + sum(s.cpu for s in timed.theirs) / sum(s.cpu for s in timed.ours),
        "encoding_once": first.clock,
        "found_again": cached.clock,
        "images": 2 * count,
    }


def plain_images(count: int, size: int, seed: int) -> ArrayDataset:
    generator = torch.Generator().manual_seed(seed)
    return ArrayDataset(torch.rand(count, 3, size, size, generator=generator) * 2 - 1, None)


def loading(profile: Profile) -> dict[str, dict[str, float]]:
    """Share of an outer step that waits for its batch, by where the images are and how many processes load them."""
    shares = {}
    with scratch() as folder:
        for label, count in ((3, 64), (5, 256)):
            (Path(folder) / "images" / str(label)).mkdir(parents=True)
            for i, pixels in enumerate(images(count, 64, label).pixel_values[: profile.batch * 16]):
                array = ((pixels + 1) * 127.5).byte().permute(1, 2, 0).numpy()
                Image.fromarray(array).save(Path(folder) / "images" / str(label) / f"{i}.png")
        everything = load_images(str(Path(folder) / "images"), size=profile.size, channels=3)
        files = hf_unlearn.split_by_label(everything, 0)
        for name, data, workers in (
            ("tensors in memory", None, 0),
            ("PNG files of 64x64, decoded in each step", files, 0),
            ("the same, 2 worker processes", files, 2),
        ):
            steps = max(3, profile.pairs // 2) + WARM_UP
            options = dict(data=data, dataloader_num_workers=workers)
            pipeline = build(profile.memory_width, profile.size)
            trainer = trainer_for(pipeline, SFRon(), profile.batch, profile.size, folder, steps, **options)
            phases = Phases(trainer)
            timed = Pairs(lambda: None, warm=phases.seconds.clear)
            trainer.add_callback(timed)
            with phases.hooked():
                trainer.train()
            shares[name] = phases.shares(sum(s.clock for s in timed.ours)).get("data", 0.0)
    return shares


def text(result: dict[str, Any]) -> str:
    kept, rows = result["latents"], [[name, f"{100 * share:.2f} %"] for name, share in result["loading"].items()]
    epoch = [
        ["latents and embeddings kept", f"{kept['with']:.2f} s", "1.00"],
        ["encoded in every step", f"{kept['without']:.2f} s", f"{kept['without'] / kept['with']:.2f}"],
    ]
    return f"""The shipped Stable Diffusion (emoji), {kept["steps"]} outer steps; by CPU time the ratio is \
{kept["cpu_ratio"]:.2f}. Encoding all {kept["images"]} images
in both flips once takes {kept["encoding_once"]:.2f} s, and {kept["found_again"]:.2f} s where they are found in the \
cache.

{markdown_table(["an epoch", "time", "ratio"], epoch)}

Share of an outer step that waits for data:

{markdown_table(["data", "share"], rows)}"""


def goals(result: dict[str, Any]) -> list[Goal]:
    return [Goal(f"share of a step that waits for data, {name}", s, LIMIT) for name, s in result["loading"].items()]
