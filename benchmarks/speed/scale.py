"""Time and memory of an outer step from 1M to 300M weights: both grow with them, not faster."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from hf_unlearn import SFRon
from hf_unlearn.evaluation import markdown_table

from .page import Goal
from .setting import ForgetPeak, Profile, Span, build, fresh, peak_megabytes, scratch, trainer_for

TITLE = "From 1M to 300M weights"
STEPS = 4
SIZE, BATCH = 8, 2


class Clock(TrainerCallback):
    """The outer steps after the first one, which builds the optimizers' states."""

    def __init__(self):
        self.marks: list[Span] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.marks.append(Span.now())

    @property
    def spans(self) -> list[Span]:
        return [after - before for before, after in zip(self.marks, self.marks[1:])]


def measure(profile: Profile) -> dict[str, Any]:
    points = []
    for width in profile.scale_widths:
        points.append(fresh(point, profile, width=width))
        print(points[-1], flush=True)
    sizes = np.array([p["parameters"] for p in points])
    fits = {}
    for what in ("cpu_seconds", "seconds", "megabytes"):
        values = np.array([p[what] for p in points])
        slope, intercept = np.polyfit(sizes, values, 1)
        fits[what] = {"slope": slope, "intercept": intercept, "r2": float(np.corrcoef(sizes, values)[0, 1] ** 2)}
    return {"points": points, "fits": fits}


def point(profile: Profile, width: int) -> dict[str, Any]:
    pipeline, clock = build(width, SIZE), Clock()
    with scratch() as folder:
        trainer = trainer_for(pipeline, SFRon(), BATCH, SIZE, folder, STEPS + 1, guard_steps=0, verify_mask_steps=0)
        trainer.add_callback(ForgetPeak())
        trainer.add_callback(clock)
        trainer.train()
    return {
        "parameters": sum(p.numel() for p in pipeline.unet.parameters()),
        "seconds": statistics.median(span.clock for span in clock.spans),
        "cpu_seconds": statistics.median(span.cpu for span in clock.spans),
        "megabytes": peak_megabytes(),
    }


def text(result: dict[str, Any]) -> str:
    fits = result["fits"]
    rows = [
        [f"{p['parameters'] / 1e6:.1f}M", f"{p['seconds']:.2f} s", f"{p['cpu_seconds']:.2f} s"]
        + [f"{p['megabytes']:.0f} MB"]
        for p in result["points"]
    ]
    return f"""An outer step of SFR-on, preset `stable` (three gradients, three targets), batch {BATCH}, {SIZE}x{SIZE}
images, each size in a fresh process.

{markdown_table(["weights", "outer step", "CPU time", "peak memory"], rows)}

Straight lines through these points: {fits["cpu_seconds"]["slope"] * 1e9:.1f} CPU seconds a 1000M weights
(R² {fits["cpu_seconds"]["r2"]:.3f}) and {fits["megabytes"]["slope"] * 2**20:.1f} bytes a weight \
(R² {fits["megabytes"]["r2"]:.4f}) over {fits["megabytes"]["intercept"]:.0f} MB of interpreter and libraries.

![time and memory of an outer step](benchmarks_scale.png)"""


def goals(result: dict[str, Any]) -> list[Goal]:
    """As shares of what the line leaves unexplained."""
    fits = result["fits"]
    return [
        Goal("memory by weights: 1 - R² of a straight line", 1 - fits["megabytes"]["r2"], 0.02),
        Goal("CPU time by weights: 1 - R² of a straight line", 1 - fits["cpu_seconds"]["r2"], 0.02),
    ]


def plot(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sizes = np.array([p["parameters"] for p in result["points"]]) / 1e6
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    panels = (("cpu_seconds", "CPU seconds of an outer step"), ("megabytes", "peak memory in MB"))
    for ax, (what, label) in zip(axes, panels):
        fit = result["fits"][what]
        line = np.array([0, sizes.max()])
        ax.plot(line, fit["slope"] * line * 1e6 + fit["intercept"], color="0.6", label="straight line")
        ax.plot(sizes, [p[what] for p in result["points"]], "o", color="C0", label="measured")
        ax.set(xlabel="weights in millions", ylabel=label, xlim=(0, None), ylim=(0, None))
        ax.grid(alpha=0.3, linewidth=0.5)
        ax.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
