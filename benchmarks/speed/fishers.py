"""The Fisher pass over plain forwards and backwards of the same batches; per-sample gradients by chunk."""

import copy
from typing import Any

import torch

from hf_unlearn import NoisePrediction
from hf_unlearn.data.pairs import collate
from hf_unlearn.evaluation import markdown_table
from hf_unlearn.saliency.fisher import fisher
from hf_unlearn.saliency.squares import CHUNK_BYTES, sample_chunk

from .page import RATIO, Goal, ratio
from .setting import Profile, Span, build, compared, forget_peak, fresh, images, peak_megabytes, spent

TITLE = "The Fisher pass over plain forward and backward"
SAMPLES, BATCH = 64, 16
CHUNKS = (1, 2, 4, 8, 16)
SIZE = 8  # small images: what the estimators add to forward and backward shows
LIMIT = 1.05


def measure(profile: Profile) -> dict[str, Any]:
    widest = profile.fisher_widths[-1]
    return {
        "batch": batch(profile),
        "sample": [chunks(width, 1 if profile.name == "tiny" else 3) for width in profile.fisher_widths],
        "memory": {
            "parameters": sum(p.numel() for p in build(widest, SIZE).unet.parameters()),
            "bound": CHUNK_BYTES["cpu"] / 2**20,
            **{str(chunk): fresh(peak, profile, width=widest, chunk=chunk)["mb"] for chunk in (0, 1, 8)},
        },
    }


def batch(profile: Profile) -> dict[str, Any]:
    """The estimator `batch` with its sums, draws and data, in turns with forward and backward alone."""
    objective = NoisePrediction(build(profile.width, profile.size)).eval()
    other = copy.deepcopy(objective.network).eval()
    data = images(SAMPLES, profile.size, 3)
    part = collate([data[i] for i in range(BATCH)])
    noise, steps = torch.randn_like(part["pixel_values"]), torch.randint(0, 1000, (BATCH,))

    def plain() -> None:
        for _ in range(SAMPLES // BATCH):
            output = other(part["pixel_values"], steps, class_labels=part["labels"]).sample
            (output - noise).pow(2).mean().backward()
            other.zero_grad()

    options = dict(forget=True, estimator="batch", max_samples=SAMPLES, batch_size=BATCH)
    ours, theirs = [], []
    for turn in range(profile.pairs + 1):
        spans = spent(lambda: fisher(objective, data, **options)), spent(plain)
        if turn:  # the first warms up
            ours.append(spans[0])
            theirs.append(spans[1])
    about = {"samples": SAMPLES, "batch_size": BATCH}
    return {**compared(ours, theirs), **about, "parameters": sum(p.numel() for p in other.parameters())}


def chunks(width: int, turns: int) -> dict[str, Any]:
    """CPU seconds a sample for each chunk, the best of `turns`, and which chunk is chosen."""
    objective = NoisePrediction(build(width, SIZE))
    data = images(BATCH, SIZE, 3)
    parameters = dict(objective.network.named_parameters())
    best: dict[int, float] = {}
    for _ in range(turns):
        for chunk in CHUNKS:
            span: Span = spent(lambda c=chunk: fisher(objective, data, True, batch_size=BATCH, chunk=c))
            best[chunk] = min(best.get(chunk, span.cpu), span.cpu)
    chosen = sample_chunk(parameters, BATCH)
    nearest = max(c for c in CHUNKS if c <= chosen)
    return {
        "parameters": sum(p.numel() for p in parameters.values()),
        "milliseconds": {str(chunk): 1e3 * value / BATCH for chunk, value in best.items()},
        "chosen": chosen,
        "over_best": best[nearest] / min(best.values()),
    }


def peak(profile: Profile, width: int, chunk: int) -> dict[str, Any]:
    """Peak memory over what the process holds before, the Fisher's own sums left out."""
    objective = NoisePrediction(build(width, SIZE))
    data = images(BATCH, SIZE, 3)
    size = sum(p.numel() for p in objective.network.parameters()) * 4 / 2**20
    forget_peak()
    before = peak_megabytes()
    fisher(objective, data, True, batch_size=BATCH, chunk=chunk or None)
    return {"mb": peak_megabytes() - before - size}


def text(result: dict[str, Any]) -> str:
    plain, memory = result["batch"], result["memory"]
    rows = [
        [f"{r['parameters'] / 1e6:.1f}M", *(f"{r['milliseconds'][str(c)]:.1f}" for c in CHUNKS), str(r["chosen"])]
        + [f"{r['over_best']:.2f}"]
        for r in result["sample"]
    ]
    taken = f"{plain['samples']} samples in batches of {plain['batch_size']}"
    return f"""Estimator `batch` (squares of batch gradients, {taken}, with data,
draws and sums) over forward and backward alone, {plain["parameters"] / 1e6:.1f}M weights:

{markdown_table(RATIO, [ratio(plain)])}

Estimator `sample` (squares of per-sample gradients), CPU milliseconds a sample by how many are taken together
through torch.func; 1 is plain autograd, one sample after the other:

{markdown_table(["weights", *map(str, CHUNKS), "chosen", "chosen / best"], rows)}

The chunk follows from the model's size alone, never from a stopwatch, so that a mask has the same bits in every run:
as many samples as {memory["bound"]:.0f} MB of gradients hold, and 1 if that is under eight. Peak memory of a pass at
{memory["parameters"] / 1e6:.1f}M weights, besides weights and sums: {memory["0"]:.0f} MB as chosen, \
{memory["1"]:.0f} MB at 1, {memory["8"]:.0f} MB at 8."""


def goals(result: dict[str, Any]) -> list[Goal]:
    worst = max(r["over_best"] for r in result["sample"])
    return [
        Goal("Fisher pass `batch` over forward and backward", result["batch"]["ratio"], LIMIT),
        Goal("chunk of `sample` over the best one, worst model", worst, 1.25),
    ]
