"""Peak memory of training all weights with the options that save it, in fresh processes."""

import time
from typing import Any

import torch
from transformers import TrainerCallback

from hf_unlearn import SFRon
from hf_unlearn.cli.estimates import Saving, memory
from hf_unlearn.evaluation import markdown_table

from .memory import warm_up
from .page import Goal
from .setting import ForgetPeak, Profile, build, forget_peak, fresh, peak_megabytes, scratch, trainer_for

TITLE = "All weights in less memory"
OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "--masked_moments": {"masked_moments": True},
    "--use_8bit_adam": {"use_8bit_adam": True},
    "--bf16_weights": {"bf16_weights": True},
    "--original_precision bf16": {"original_precision": "bf16"},
    "the first three": {"masked_moments": True, "use_8bit_adam": True, "bf16_weights": True},
}
SIZE, BATCH, STEPS = 8, 1, 3  # small images and batches, where the weights weigh most


class LastStep(TrainerCallback):
    """The seconds of this process's threads in the last outer step."""

    def on_step_begin(self, args, state, control, **kwargs):
        self._start = time.process_time()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds = time.process_time() - self._start


def measure(profile: Profile) -> dict[str, Any]:
    width, rows = profile.width, {}
    for name in OPTIONS:
        rows[name] = fresh(peak, profile, name=name)
        print(name, rows[name], flush=True)
    count = sum(p.numel() for p in build(width, SIZE).unet.parameters())
    return {"parameters": count, "size": SIZE, "batch": BATCH, "rows": rows}


def peak(profile: Profile, name: str) -> dict[str, float]:
    """The peak beside the interpreter with its libraries and a trainer's code, the weights and masks in it."""
    options = OPTIONS[name]
    warm_up()
    forget_peak()
    before = peak_megabytes()
    model, last = build(profile.width, SIZE), LastStep()
    with scratch() as folder:
        # Without the guard's snapshot, which is of the weights on their way to the disk.
        trainer = trainer_for(model, SFRon(), BATCH, SIZE, folder, STEPS, guard_steps=0, **options)
        trainer.add_callback(ForgetPeak())
        trainer.add_callback(last)
        trainer.train()
    mb = peak_megabytes() - before
    with torch.device("meta"):
        sketch = build(profile.width, SIZE).unet
    return {"mb": mb, "seconds": last.seconds, "estimate": estimated(sketch, options) / 2**20}


def estimated(network: torch.nn.Module, options: dict[str, Any]) -> int:
    return memory(network, "masked", SFRon(), BATCH, SIZE, saving=Saving(**options)).peak


def text(result: dict[str, Any]) -> str:
    rows, plain = result["rows"], result["rows"]["as it is"]
    table = [
        [
            name,
            f"{row['mb']:.0f} MB",
            f"{row['mb'] * 2**20 / result['parameters']:.1f}",
            f"{row['mb'] / plain['mb']:.2f}",
            f"{row['estimate'] / row['mb']:.2f}",
            f"{row['seconds'] / plain['seconds']:.2f}",
        ]
        for name, row in rows.items()
    ]
    header = [
        "`sfron` with masks",
        "peak",
        "bytes a weight",
        "over none",
        "estimate over it",
        "time of a step over none",
    ]
    return f"""{result["parameters"] / 1e6:.1f}M weights, all trained, {result["size"]}x{result["size"]} images, batch
{result["batch"]}, half of the weights in the mask. Activations and what the interpreter's own allocations leave are in
the peak. Time is that of the process's threads, on a CPU, where other work counts little.

{markdown_table(header, table)}"""


def goals(result: dict[str, Any]) -> list[Goal]:
    rows = result["rows"]
    leanest = rows["the first three"]["mb"] * 2**20 / result["parameters"]
    return [Goal("bytes a weight of the first three options together", leanest, 16)]
