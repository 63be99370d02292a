"""Sequences on tiny diffusion models, and the process that runs one and may die.

python pictures.py KIND FOLDER [NUMBER STEP]    dies by SIGKILL in outer step STEP of request NUMBER
"""

import sys
from typing import Any

import torch
from conftest import config, random_images, tiny_pipeline, tiny_sd
from stream import die_in, steady

from hf_unlearn import CLU
from hf_unlearn.families.latents import Drawing
from hf_unlearn.sequences import ReplayMemory
from hf_unlearn.sequences.continual import ContinualUnlearning
from hf_unlearn.sequences.diffusion import ClassPainter, DiffusionSequence, PromptPainter

CLASSES = [{"forget": {"classes": [1]}}, {"forget": {"classes": [3]}}, {"learn": {"classes": [1]}}]
PROMPTS = [
    {"forget": {"concept": "a cat", "anchor": "a dog"}},
    {"forget": {"concept": "a dog", "anchor": "a car"}},
    {"forget": {"concept": "a ship", "anchor": "a car", "templates": ["{}", "a red {}"]}},
]
REPLAYED = ("a cat", "a photo of a cat", "a dog", "a photo of a dog", "a car")


def class_painter() -> ClassPainter:
    return ClassPainter(tiny_pipeline(), random_images(), num_inference_steps=2, guidance_scale=1.0)


def prompt_painter() -> PromptPainter:
    drawing = Drawing(num_inference_steps=2, guidance_scale=1.0, batch_size=4)
    return PromptPainter(tiny_sd(), REPLAYED, drawing=drawing)


def sequence(kind: str, folder: Any, samples: int = 8, **values: Any) -> DiffusionSequence:
    given = {name: values.pop(name) for name in ("match", "hold", "audit", "strategy") if name in values}
    saves = dict(save_strategy="steps", save_steps=1, save_total_limit=1, logging_strategy="no")
    made = config(folder, **{**saves, "learning_rate": None, "max_steps": 3, **values})
    painter = class_painter() if kind == "classes" else prompt_painter()
    given.setdefault("strategy", ContinualUnlearning(method=CLU(fisher_samples=4)))
    return DiffusionSequence(painter, made, ReplayMemory(samples), forget_pictures=4, **given)


def main() -> None:
    torch.set_num_threads(1)
    kind, folder, *kill = sys.argv[1:]
    die_in(*kill)
    sequence(kind, folder, **steady()).run(CLASSES if kind == "classes" else PROMPTS)


if __name__ == "__main__":
    main()
