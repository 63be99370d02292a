"""What torch.compile, 8-bit Adam, bf16, activation checkpointing and channels_last bring, or why they do not work."""

import os
from typing import Any

import torch

from hf_unlearn import SFRon
from hf_unlearn.evaluation import markdown_table

from .bare import WARM_UP, Bare, Pairs
from .setting import ForgetPeak, Profile, build, compared, fresh, peak_megabytes, scratch, trainer_for

TITLE = "Options of torch and transformers"
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "fp32": ("the default", {}),
    "bf16": ("`bf16=True`", {"bf16": True}),
    "activation checkpointing": ("`activation_checkpointing=True`", {"activation_checkpointing": True}),
    "channels_last": ("`pipeline.unet.to(memory_format=torch.channels_last)`", {}),
    "torch.compile": ("`torch_compile=True`", {"torch_compile": True}),
    "8-bit Adam": ('`optim="adamw_bnb_8bit"`', {"optim": "adamw_bnb_8bit"}),
}


def measure(profile: Profile) -> dict[str, Any]:
    names = [name for name in OPTIONS if name not in profile.options_left_out]
    return {name: _both(profile, name) for name in names}


def _both(profile: Profile, name: str) -> dict[str, Any]:
    """Time beside the steps by hand; memory alone, since those need some too."""
    timed = fresh(outcome, profile, name=name, alone=False)
    return {**timed, **fresh(outcome, profile, name=name, alone=True)} if "ratio" in timed else timed


def outcome(profile: Profile, name: str, alone: bool) -> dict[str, Any]:
    """Its figures, or the line in which the program says why not."""
    pipeline = build(profile.memory_width, profile.size)
    if name == "channels_last":
        pipeline.unet.to(memory_format=torch.channels_last)
    batch = profile.memory_batches[0] if alone else min(16, profile.memory_batches[0])
    bare = None if alone else Bare(profile.memory_width, profile.size, batch)
    try:
        with scratch() as folder:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/compiled"  # nothing is found from an earlier run
            steps = 2 if alone else max(3, profile.pairs // 2) + WARM_UP
            trainer = trainer_for(pipeline, SFRon(), batch, profile.size, folder, steps, **OPTIONS[name][1])
            timed = Pairs(bare.step) if bare else ForgetPeak()
            trainer.add_callback(timed)
            trainer.train()
    except ValueError as error:
        return {"refused": str(error)}
    except Exception as error:  # an option that breaks must not cost the figures of the others: it is listed as broken
        return {"broken": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
    if alone:
        return {"mb": peak_megabytes(), "memory_batch": batch}
    return {**compared(timed.ours, timed.theirs), "first_seconds": timed.first.clock, "batch": batch}


def text(result: dict[str, Any]) -> str:
    plain, rows, refused, broken = result["fp32"], [], [], []
    left_out = [name for name in OPTIONS if name not in result]
    for name, r in result.items():
        if "refused" in r:
            refused.append(f"- {name}, {OPTIONS[name][0]}: `{r['refused']}`")
            continue
        if "broken" in r:
            broken.append(f"- {name}, {OPTIONS[name][0]}: `{r['broken']}`")
            continue
        relative = {key: r[key] / plain[key] for key in ("ratio", "cpu_ratio", "mb")}
        rows.append(
            [
                name,
                OPTIONS[name][0],
                f"{relative['ratio']:.2f}",
                f"{relative['cpu_ratio']:.2f}",
                f"{relative['mb']:.2f}",
                f"{r['first_seconds']:.1f} s",
            ]
        )
    header = ["option", "how", "time over default", "by CPU time", "peak memory over default", "first step"]
    return f"""Outer steps of batch {plain["batch"]} after {WARM_UP} that warm up, each option in a fresh process and \
in turns with the same fp32 steps by hand; memory of two steps of batch {plain["memory_batch"]} in another process.
`torch.compile` compiles in the first step, nothing being cached, and is measured with `--all_options`; 8-bit Adam
where `hf_unlearn[adam8bit]` is installed.

{markdown_table(header, rows)}

What this machine refuses, in the program's own words:

{chr(10).join(refused) or "Nothing."}

What breaks without such a line:

{chr(10).join(broken) or "Nothing."}

{f"Left out in this profile: {', '.join(left_out)}." if left_out else ""}""".rstrip()


def goals(result: dict[str, Any]) -> list[Any]:
    return []
