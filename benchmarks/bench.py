"""What unlearning costs in time and memory, as ratios of runs in turns on the same machine.

    python benchmarks/bench.py --profile quick     about ten minutes on two idle cores (`make bench`)
    python benchmarks/bench.py                     the full profile: an hour, models up to 300M weights
    python benchmarks/bench.py --only step memory  replaces these sections, keeps the others
    python benchmarks/bench.py --profile quick --only options --all_options     torch.compile too: minutes more
    python benchmarks/bench.py --only              only writes the page anew from the kept figures

Every section goes into the JSON as soon as it is measured; the page and the plot are made from the JSON alone.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

SECTIONS = {
    "step": "steps",
    "strength": "strengths",
    "fisher": "fishers",
    "published": "published",
    "memory": "memory",
    "peaks": "peaks",
    "weights": "weights",
    "scale": "scale",
    "caching": "caching",
    "options": "options",
}
ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "diffusers", "transformers", "accelerate")


def module(section: str) -> Any:
    return import_module(f"speed.{SECTIONS[section]}")


def run(sections: list[str], profile: Any, output: Path) -> None:
    """Measure `sections` and put them into the JSON file, which keeps the others."""
    from hf_unlearn.evaluation.tables import stamp

    output.parent.mkdir(parents=True, exist_ok=True)
    for name in sections:
        print(f"# {module(name).TITLE}", flush=True)
        start = time.perf_counter()
        result = module(name).measure(profile)
        about = {"stamp": stamp(*PACKAGES), "profile": asdict(profile), "seconds": time.perf_counter() - start}
        kept = json.loads(output.read_text()) if output.exists() else {}
        kept[name] = {**about, "result": result}
        partial = output.with_suffix(".partial")
        partial.write_text(json.dumps({k: kept[k] for k in SECTIONS if k in kept}, indent=1) + "\n")
        partial.replace(output)
        print(module(name).text(json.loads(json.dumps(result))) + "\n", flush=True)


def rendered(kept: dict[str, Any]) -> str:
    """The page, from the JSON alone."""
    from hf_unlearn.evaluation import markdown_table

    goals = [goal for name, part in kept.items() for goal in module(name).goals(part["result"])]
    absent = ", ".join(f"{module(name).TITLE} (`--only {name}`)" for name in SECTIONS if name not in kept)
    missed = [f"- {g.what}: {g.value:.3f}, goal {g.limit:g}" for g in goals if not g.met]
    parts = []
    for name, part in kept.items():
        profile = part["profile"]
        how = f"profile {profile['name']}, {profile['pairs']} pairs, {profile['threads']} threads"
        about = f"{part['stamp']}; {how}, {part['seconds']:.0f} s"
        parts.append(f"## {module(name).TITLE}\n\n{module(name).text(part['result'])}\n\n{about}.")
    table = markdown_table(["what", "measured", "goal", ""], [goal.row for goal in goals])
    return f"""# What unlearning costs

Made from `benchmarks/results/bench.json` by `python benchmarks/bench.py --profile quick` (`make bench`; without the
flag the full profile). Ratios are medians over pairs that run in turns, so that what else the machine does falls on
both alike; by CPU time they hardly depend on it. Memory is the peak resident memory of a fresh process, the
interpreter's own included, with a fixed malloc threshold, so that it is what is in use.

## Goals

{table}

### Goals missed

{chr(10).join(missed) or "None."}

{(chr(10) * 2).join([*parts, *([f"Not measured yet: {absent}."] if absent else [])])}
"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=["tiny", "quick", "full"], default="full", help="how large and how often")
    parser.add_argument("--quick", action="store_const", dest="profile", const="quick", help="--profile quick")
    parser.add_argument("--only", nargs="*", choices=list(SECTIONS), help="sections; default all, none: page only")
    parser.add_argument("--all_options", action="store_true", help="also those that a profile leaves out")
    parser.add_argument("--pairs", type=int, help="timed pairs; more of them where the machine is not idle")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch; default one a core")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/bench.json")
    parser.add_argument("--markdown", type=Path, default=ROOT / "docs/benchmarks.md")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs/benchmarks_scale.png")
    options = parser.parse_args(argv)
    import torch
    from speed.setting import PROFILES

    torch.set_num_threads(options.threads)
    profile = replace(PROFILES[options.profile], threads=options.threads)
    if options.pairs:
        profile = replace(profile, pairs=options.pairs)
    if options.all_options:
        profile = replace(profile, options_left_out=())
    run(list(SECTIONS) if options.only is None else options.only, profile, options.output)
    kept = json.loads(options.output.read_text())
    options.markdown.parent.mkdir(parents=True, exist_ok=True)
    options.markdown.write_text(rendered(kept))
    if "scale" in kept:
        module("scale").plot(kept["scale"]["result"], options.plot)


if __name__ == "__main__":
    main(sys.argv[1:])
