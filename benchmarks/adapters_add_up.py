"""Adapters that each forget one object, put together: does every object stay forgotten, and does the rest stay?

    hf-unlearn sd --concept "a butterfly" --anchor_concept "a rose" --use_lora --lora_select all \\
        --output_dir no-butterfly --pretrained_model_name_or_path src/hf_unlearn/assets/emoji_sd \\
        --guidance_scale 3 --num_inference_steps 20
    python benchmarks/adapters_add_up.py butterfly=no-butterfly banana=no-banana car=no-car

Each adapter was trained on the shipped model alone and knows nothing of the others. The first one, the first two and
so on are put together in two ways: summed, as `load_lora_weights` and `set_adapters` do, and by TIES (Yadav et al.,
NeurIPS 2023, arXiv 2306.01708; peft, density 0.5, on changes of whole weights). The shipped classifiers read
two pictures of every prompt. The last row takes the first adapter off again, so that its object should come back.
"""

import argparse
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils.merge_utils import ties
from sequences_readings import beside, emoji_read, emoji_row, unread

from hf_unlearn.evaluation import markdown_table, stamp
from hf_unlearn.evaluation.emoji import EMOJI_SD
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline
from hf_unlearn.saving.adapters import load_adapter

DENSITY = 0.5
HEADER = ("together", "forgotten", "UA %", "worst object %", "IRA % (original)", "CRA % (original)", "read again %")


def loaded(runs: dict[str, str]) -> Any:
    """The shipped pipeline with an adapter a run, all of them active."""
    pipeline = load_text_to_image_pipeline(str(EMOJI_SD))
    pipeline.set_progress_bar_config(disable=True)
    for name, folder in runs.items():
        load_adapter(pipeline, folder, name)
    return pipeline


def merged(runs: dict[str, str]) -> Any:
    """The shipped pipeline whose weights were changed by the adapters together, by TIES."""
    changed, pipeline = loaded(runs), load_text_to_image_pipeline(str(EMOJI_SD))
    pipeline.set_progress_bar_config(disable=True)
    weights = dict(pipeline.unet.named_parameters())
    with torch.no_grad():
        for name, layer in changed.unet.named_modules():
            if not isinstance(layer, LoraLayer):
                continue
            there = [layer.get_delta_weight(run) for run in runs if run in layer.lora_A]
            if there:
                weights[f"{name}.weight"] += ties(there, torch.ones(len(there)), DENSITY, "total")
    return pipeline


def row(how: str, pipeline: Any, gone: list[str], first: dict[str, Any], back: list[str] | None = None) -> list[str]:
    """One row of the table. `back`: objects whose adapters were taken off again."""
    reading = emoji_read(pipeline, 2)
    now, before = emoji_row(reading, gone), emoji_row(first, gone)
    worst = min(1 - hit / of for hit, of in now["gone"].values())
    again = ", ".join(
        f"{name} {100 * hit / of:.0f}" for name, (hit, of) in emoji_row(reading, back or [])["gone"].items()
    )
    shares = [f"{100 * share:.1f}" for share in (unread(now), worst)]
    return [how, ", ".join(gone), *shares, *beside(now, before), again]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="OBJECT=RUN_DIR", help="runs with --use_lora on the shipped model")
    options = parser.parse_args()
    runs = dict(one.split("=", 1) for one in options.runs)
    first = emoji_read(loaded({}), 2)
    rows = []
    for count in range(1, len(runs) + 1):
        some = dict(list(runs.items())[:count])
        rows.append(row("sum", loaded(some), list(some), first))
        if count > 1:
            rows.append(row("TIES", merged(some), list(some), first))
    if len(runs) > 1:
        name, *others = runs
        rows.append(row("sum, first off", loaded({other: runs[other] for other in others}), others, first, [name]))
    print(f"{stamp('torch', 'diffusers', 'peft')}\n\n{markdown_table(list(HEADER), rows)}")


if __name__ == "__main__":
    main()
