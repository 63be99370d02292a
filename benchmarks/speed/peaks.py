"""Peak memory of the Fisher pass and of the training after it, in fresh processes."""

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from hf_unlearn import NoisePrediction, SFRon, TextToImage, add_lora
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.evaluation import markdown_table
from hf_unlearn.families.text_to_image.objective import Prompts
from hf_unlearn.saliency.ranks import choose_lora

from .memory import warm_up
from .page import Goal
from .setting import ForgetPeak, Profile, build, forget_peak, fresh, images, peak_megabytes, scratch, trainer_for

TITLE = "The Fisher pass over the training after it"
MODES = ("all weights", "cross attention", "LoRA")
SIZE, BATCH, SAMPLES = 8, 2, 2  # small images and batches, where the weights weigh most


def measure(profile: Profile) -> dict[str, Any]:
    found = []
    for width in profile.peak_widths:
        for mode in MODES:
            taken = [fresh(peak, profile, width=width, mode=mode, part=part) for part in ("Fisher", "training")]
            found.append({**taken[0], "training": taken[1]["mb"], "mode": mode})
            print(found[-1], flush=True)
    return {"batch": BATCH, "size": SIZE, "rows": found}


def conditioned(width: int) -> TextToImage:
    """A UNet of Stable Diffusion's kind, about as large as that of `build`; its cross attention is trained."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=SIZE,
        block_out_channels=(width, 2 * width, 5 * width // 2),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2 * width,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=8)
    told = (vae, None, None, unet, DDIMScheduler(1000, steps_offset=1, clip_sample=False), None, None)
    pipeline = StableDiffusionPipeline(*told, requires_safety_checker=False)
    texts = ["", "a cat", "a dog"]
    prompts = Prompts(texts, torch.randn(len(texts), 77, 2 * width), [1, 2, 2])
    return TextToImage(pipeline, prompts, {"a cat": "a dog"}, train_method="xattn")


def peak(profile: Profile, width: int, mode: str, part: str) -> dict[str, Any]:
    """The peak of one of the two parts, beside the interpreter with its libraries and a trainer's code."""
    warm_up()
    forget_peak()
    before = peak_megabytes()
    if mode == "cross attention":
        model: Any = conditioned(width)
        data = [ArrayDataset(torch.randn(8, 4, SIZE, SIZE), torch.full((8,), label)) for label in (1, 2)]
    else:
        model, data = NoisePrediction(build(width, SIZE)), [images(8, SIZE, label) for label in (3, 5)]
    count = sum(p.numel() for p in model.network.parameters())
    method = SFRon(fisher_samples=SAMPLES)
    if mode == "LoRA":
        forget_peak()
        sizes: dict[str, Any] = {"max_samples": SAMPLES, "train_batch_size": BATCH}
        config = choose_lora(model, *data, "saliency" if part == "Fisher" else "all", **sizes)
        if part == "Fisher":
            return {"parameters": count, "mb": peak_megabytes() - before}
        add_lora(model, config)
    with scratch() as folder:
        trainer = trainer_for(model, method, BATCH, SIZE, folder, 2, tuple(data), guard_steps=0)
        if part == "Fisher":
            trainer.reference.masks = None
            trainer.reference.keep_original()
            forget_peak()
            trainer.reference.compute_masks()
        else:
            trainer.add_callback(ForgetPeak())
            trainer.train()
        return {"parameters": count, "mb": peak_megabytes() - before}


def text(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{r['parameters'] / 1e6:.0f}M",
            r["mode"],
            f"{r['mb']:.0f} MB",
            f"{r['training']:.0f} MB",
            f"{_share(r):.2f}",
        ]
        for r in result["rows"]
    ]
    return f"""Resident memory beside the interpreter and its libraries, batch {result["batch"]}, {result["size"]}x\
{result["size"]} images, with the default Fisher (`sample`), preset `stable`; LoRA has rank 4, on all layers while it
is trained. The copy of the original counts in both.

{markdown_table(["weights", "trained", "Fisher pass", "training", "ratio"], rows)}

A gradient is squared and freed as soon as it is whole. Masks need the sums of all trained weights, 8 bytes each. The
scores of LoRA ranks are sums over the weights of a layer: where those of all weights take more than the training does,
every k-th weight of a layer is looked at."""


def _share(row: dict[str, Any]) -> float:
    return row["mb"] / row["training"]


def goals(result: dict[str, Any]) -> list[Goal]:
    named = ((f"{r['parameters'] / 1e6:.0f}M, {r['mode']}", _share(r)) for r in result["rows"])
    return [Goal(f"peak of the Fisher pass over the training's, {name}", share, 1.0) for name, share in named]
