"""Peak memory of each mode over plain fine-tuning by hand, at the same batch, in fresh processes."""

from dataclasses import replace
from typing import Any

from hf_unlearn import FineTune, SFRon
from hf_unlearn.evaluation import markdown_table

from .bare import Bare
from .page import Goal
from .setting import (
    ForgetPeak,
    Profile,
    build,
    forget_peak,
    fresh,
    peak_megabytes,
    scratch,
    trainer_for,
    with_lora,
)

TITLE = "Peak memory over plain fine-tuning"
PLAIN, LORA, PREPARATION = "fine-tuning by hand", "LoRA", "mask preparation alone"
OPTIONS: dict[str, dict[str, Any]] = {
    "stable": {},
    "stable, no mask": {"use_mask": False},
    "stable, retain on the data": {"retain_loss": "data"},
    "stable, shared optimizer": {"forget_optim": "shared"},
    "stable, beta 0.5": {"slow_rate": 0.5},
    "leanest": {"forget_optim": "shared", "retain_loss": "data"},
}
MODES = ("finetune method", *OPTIONS, LORA, PREPARATION)
LIMIT = 1.15


def measure(profile: Profile) -> dict[str, Any]:
    modes = (PLAIN, *(profile.memory_modes or MODES))
    figures = {}
    for batch in profile.memory_batches:
        figures[str(batch)] = {mode: fresh(peak, profile, mode=mode, batch=batch)["mb"] for mode in modes}
        print(figures[str(batch)], flush=True)
    unet = build(profile.memory_width, profile.size).unet
    return {"parameters": sum(p.numel() for p in unet.parameters()), "size": profile.size, "megabytes": figures}


def peak(profile: Profile, mode: str, batch: int) -> dict[str, float]:
    """Two steps of one mode; every step measures the drift outside the mask and takes the guard's snapshot."""
    width, size = profile.memory_width, profile.size
    warm_up()
    if mode == PLAIN:
        bare = Bare(width, size, batch, forget=False)
        forget_peak()
        bare.step()
        bare.step()
        return {"mb": peak_megabytes()}
    method = FineTune() if mode == "finetune method" else SFRon(**OPTIONS.get(mode, {}))
    model = with_lora(build(width, size)) if mode == LORA else build(width, size)
    with scratch() as folder:
        trainer = trainer_for(model, method, batch, size, folder, 2, guard_steps=1, verify_mask_steps=1)
        if mode == PREPARATION:  # one batch of each set, of the default size
            forget_peak()
            small = replace(method, fisher_samples=method.fisher_batch_size)
            small.compute_masks(trainer.objective, trainer.forget_dataset, trainer.retain_dataset, 0)
        else:
            trainer.add_callback(ForgetPeak())
            trainer.train()
        return {"mb": peak_megabytes()}


def warm_up() -> None:
    """Train a tiny model: code and caches take the same room for any model, so every process has them before."""
    with scratch() as folder:
        options = {"guard_steps": 1, "verify_mask_steps": 1}
        trainer_for(build(8, 8), SFRon(slow_rate=0.5), 2, 8, folder, 2, **options).train()


def text(result: dict[str, Any]) -> str:
    parts = []
    for batch, figures in result["megabytes"].items():
        rows = [
            [mode, f"{value:.0f} MB", f"{value / figures[PLAIN]:.3f}", f"{_bytes(result, figures, mode):+.1f}"]
            for mode, value in figures.items()
        ]
        header = [f"batch {batch}", "peak", "over fine-tuning by hand", "bytes a weight besides"]
        parts.append(markdown_table(header, rows))
    return f"""{result["parameters"] / 1e6:.1f}M weights, {result["size"]}x{result["size"]} images. What a mode keeps
besides plain fine-tuning does not depend on the batch, so the ratio does. By construction it is, in bytes a weight:
8 for a forget optimizer of its own (`forget_optim=separate`), 4 for the original (`retain_loss=match`), 1 for the
mask, 4 for slow weights where beta is under 1, none at 1. Fine-tuning itself takes 16, so for batches whose
activations are small the ratio tends to 1 + 13 / 16 for `stable` and 1 + 1 / 16 for `leanest`, which is
`--forget_optim shared --retain_loss data`: the choice where memory is short. Mask files take one bit a weight.

Every process, that of the fine-tuning by hand too, has trained a tiny model with the trainer before: its code
and caches, about 15 MB whatever the model, are in all figures alike.

{(chr(10) * 2).join(parts)}"""


def _bytes(result: dict[str, Any], figures: dict[str, float], mode: str) -> float:
    return (figures[mode] - figures[PLAIN]) * 2**20 / result["parameters"]


def goals(result: dict[str, Any]) -> list[Goal]:
    return [
        Goal(f"peak memory over fine-tuning, {mode}, batch {batch}", value / figures[PLAIN], LIMIT)
        for batch, figures in result["megabytes"].items()
        for mode, value in figures.items()
        if mode not in (PLAIN, PREPARATION)
    ]
