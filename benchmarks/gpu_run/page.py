"""docs/gpu.md, from the kept figures alone."""

from typing import Any

from speed.page import Goal

LIMIT = 1.03
INTRODUCTION = """# On a GPU

`make gpu` (`python benchmarks/gpu.py`) measures this page on a machine with CUDA, within nine minutes and without a
network: outer steps and Fisher passes of networks of the published shapes with random weights, the tests that need a
GPU, and what the shipped emoji model comes to by all weights, with attacks. `--budget SECONDS` sets the time. Each
stage is written to `benchmarks/results/gpu.json` when it is done; `--resume` goes on. Where packages are missing,
`--wheels FOLDER` takes them from wheels that were carried there. `--device cpu --tiny` runs the same code on tiny
networks, as a test."""
NEVER = """## Results

**This was not run on a GPU yet**, so there are no figures. `make gpu` on a machine with one writes them here. Its code
is tested on a CPU with tiny networks (`tests/test_gpu_run.py`)."""
EXPLAINED = """SFR-on at a given rate without a mask: one forget and two retain steps, with data, draws and logging,
after two steps that warm up. Its work is the forwards, backwards, clips and fused Adam steps in it, written by hand
and run alone on the same device. Peaks are those of torch's allocator. fp32 is torch's default: convolutions in TF32,
products of matrices not. All weights and the adapter's factors are held in fp32; bf16 is the precision of the
forwards. Attention is torch's scaled dot product attention unless the row says otherwise."""


def rendered(kept: dict[str, Any] | None) -> str:
    """The page; without figures it says that there are none.

    Args:
        kept: what `stages.run` wrote.
    """
    if kept is None:
        return f"{INTRODUCTION}\n\n{NEVER}\n"
    done = {name: stage["result"] for name, stage in kept["stages"].items() if "result" in stage}
    parts = [INTRODUCTION, f"## Results\n\n{kept['device']}; {kept['stamp']}."]
    if kept["tiny"]:
        parts.append("**Tiny networks on a CPU: a test of the code, no measurement.**")
    parts += [part for part in (_goals(done), _steps(done), _fishers(done), _rest(done)) if part]
    left = [
        f"- {name}: {stage.get('skipped') or stage['failed']}"
        for name, stage in kept["stages"].items()
        if "result" not in stage
    ]
    parts.append("## Left out\n\n" + ("\n".join(left) or "Nothing."))
    return "\n\n".join(parts) + "\n"


def table(header: list[str], rows: list[list[str]]) -> str:
    from hf_unlearn.evaluation import markdown_table

    return markdown_table(header, rows)


def goals(done: dict[str, Any]) -> list[Goal]:
    """An outer step takes hardly longer than its work."""
    return [
        Goal(f"outer step over its work: {name}", found["seconds"] / found["work_seconds"], LIMIT)
        for name, found in done.items()
        if "work_seconds" in found
    ]


def _goals(done: dict[str, Any]) -> str:
    found = [goal.row for goal in goals(done)]
    return "### Goals\n\n" + table(["what", "measured", "goal", ""], found) if found else ""


def _steps(done: dict[str, Any]) -> str:
    steps = {name: found for name, found in done.items() if "trained" in found}
    rows = []
    for name, found in steps.items():
        by_hand = found.get("work_seconds")
        rows.append(
            [
                name,
                f"{found['parameters'] / 1e6:.0f}M",
                f"{found['trained'] / 1e6:.1f}M",
                str(found["batch"]),
                f"{found['seconds']:.3f} s",
                "-" if by_hand is None else f"{found['seconds'] / by_hand:.3f}",
                gigabytes(found["megabytes"]),
                "-" if by_hand is None else gigabytes(found["work_megabytes"]),
            ]
        )
    header = [
        "network, weights, how",
        "weights",
        "trained",
        "batch",
        "outer step",
        "over its work",
        "peak",
        "peak of its work",
    ]
    return f"### Outer steps\n\n{EXPLAINED}\n\n{table(header, rows)}" if rows else ""


def _fishers(done: dict[str, Any]) -> str:
    rows = [
        [
            name.removeprefix("Fisher pass, "),
            str(found["batch"]),
            f"{found['fisher_seconds'] / found['plain_seconds']:.3f}",
            gigabytes(found["fisher_megabytes"]),
            gigabytes(found["plain_megabytes"]),
        ]
        for name, found in done.items()
        if "fisher_seconds" in found
    ]
    header = ["network", "batch", "time over plain", "peak", "peak of plain"]
    said = "Squares of batch gradients of all weights, four batches in fp32, over as many forwards and backwards."
    return f"### The Fisher pass\n\n{said}\n\n{table(header, rows)}" if rows else ""


def _rest(done: dict[str, Any]) -> str:
    parts = [
        f"### {name[0].upper()}{name[1:]}\n\n`{found['said']}`" for name, found in done.items() if "said" in found
    ]
    for name, found in done.items():
        if "outcome" in found:
            rows = [[metric, f"{value:.3f}"] for metric, value in found["after"].items()]
            said = f"{found['outcome']} {found['verdict']} From the command to the end {found['seconds']:.0f} s."
            parts.append(f"### {name[0].upper()}{name[1:]}\n\n{said}\n\n{table(['metric after', ''], rows)}")
    return "\n\n".join(parts)


def gigabytes(megabytes: float) -> str:
    return f"{megabytes / 1024:.2f} GiB"
