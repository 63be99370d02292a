"""What an outer step costs beyond its forwards, backwards and optimizer steps, and how much memory it takes.

    python benchmarks/step_overhead.py

Time: after each outer step of UnlearnTrainer (SFR-on defaults, masks on, data loading and logging included) the same
process runs the bare work on a second copy of the model; the ratio is the median over these pairs. Memory: peak
resident memory of fresh processes, over a hand-written fine-tuning loop at the same batch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DModel
from transformers import TrainerCallback

from hf_unlearn import ClassConditionalDDPMPipeline, SFRon, UnlearnConfig, UnlearnTrainer
from hf_unlearn.images import ArrayDataset

MEMORY_MODES = {
    "plain fine-tuning": None,
    "stable": {},
    "stable, shared optimizer": {"forget_optim": "shared"},
    "stable, beta 0.5": {"slow_rate": 0.5},
}


def build(size: int) -> ClassConditionalDDPMPipeline:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=size,
        in_channels=3,
        out_channels=3,
        block_out_channels=(128, 256, 320),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
        num_class_embeds=11,
    )
    return ClassConditionalDDPMPipeline(unet, DDIMScheduler(1000), null_class=10)


def images(count: int, size: int, label: int) -> ArrayDataset:
    generator = torch.Generator().manual_seed(label)
    return ArrayDataset(torch.rand(count, 3, size, size, generator=generator) * 2 - 1, torch.full((count,), label))


def trainer_for(pipeline, batch: int, size: int, folder: str, steps: int, **options) -> UnlearnTrainer:
    config = UnlearnConfig(
        output_dir=folder, per_device_train_batch_size=batch, max_steps=steps, disable_tqdm=True, learning_rate=1e-4
    )
    method = SFRon(fisher_samples=8, fisher_batch_size=2, **options)
    return UnlearnTrainer(pipeline, config, method, images(64, size, 3), images(256, size, 5))


class Bare:
    """The work an outer step contains, and nothing else: K + 1 forwards and backwards, the anchor's forward, Adam."""

    def __init__(self, pipeline, batch: int, size: int, retain_steps: int):
        self.unet, self.k = pipeline.unet.train(), retain_steps
        self.adams = [torch.optim.AdamW(self.unet.parameters(), lr=1e-4, weight_decay=0, fused=True) for _ in range(2)]
        self.x, self.t = torch.randn(batch, 3, size, size), torch.randint(0, 1000, (batch,))
        self.labels, self.anchor = torch.full((batch,), 3), torch.full((batch,), 4)

    def step(self) -> None:
        for part in range(self.k + 1):
            with torch.no_grad():
                target = self.x if part else self.unet(self.x, self.t, class_labels=self.anchor).sample
            (self.unet(self.x, self.t, class_labels=self.labels).sample - target).pow(2).mean().backward()
            self.adams[0 if part else 1].step()
            self.unet.zero_grad()


class Pairs(TrainerCallback):
    """Times every outer step, then one bare step."""

    def __init__(self, bare: Bare):
        self.bare, self.ours, self.theirs, self.mark = bare, [], [], 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self.mark = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        now = time.perf_counter()
        self.bare.step()
        after = time.perf_counter()
        self.ours.append(now - self.mark)
        self.theirs.append(after - now)
        self.mark = time.perf_counter()


def overhead(batch: int, size: int, pairs: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(build(size), batch, size, folder, pairs + 2)
        timed = Pairs(Bare(build(size), batch, size, trainer.method.retain_steps))
        trainer.add_callback(timed)
        trainer.train()
    ratios = sorted(a / b for a, b in zip(timed.ours[2:], timed.theirs[2:]))
    return {
        "parameters": sum(p.numel() for p in timed.bare.unet.parameters()),
        "median_ratio": statistics.median(ratios),
        "quartiles": [ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]],
        "ratio_of_sums": sum(timed.ours[2:]) / sum(timed.theirs[2:]),
        "seconds_per_outer_step": statistics.median(timed.ours[2:]),
        "pairs": len(ratios),
    }


def peak(mode: str, batch: int, size: int) -> None:
    """Run three steps of one mode and print the peak resident memory in MB, the interpreter's own included."""
    pipeline = build(size)
    if MEMORY_MODES[mode] is None:
        unet, x, t = pipeline.unet.train(), torch.randn(batch, 3, size, size), torch.randint(0, 1000, (batch,))
        adam, labels = torch.optim.AdamW(unet.parameters(), lr=1e-4, fused=True), torch.full((batch,), 3)
        for _ in range(3):
            unet(x, t, class_labels=labels).sample.pow(2).mean().backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            adam.step()
            unet.zero_grad()
    else:
        with tempfile.TemporaryDirectory() as folder:
            trainer_for(pipeline, batch, size, folder, 3, **MEMORY_MODES[mode]).train()
    status = Path("/proc/self/status").read_text()
    print("PEAK", int(status.split("VmHWM:")[1].split()[0]) / 1024)


def memory(batch: int, size: int) -> dict:
    figures = {}
    for mode in MEMORY_MODES:
        command = [sys.executable, __file__, "--peak", mode, "--memory_batch", str(batch), "--size", str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
        figures[mode] = float(done.stdout.split("PEAK")[1])
    plain = figures["plain fine-tuning"]
    return {"megabytes": figures, "ratio": {mode: value / plain for mode, value in figures.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=4, help="of the timed steps")
    parser.add_argument("--memory_batch", type=int, default=32, help="of the memory figures")
    parser.add_argument("--output", default="benchmarks/results/step_overhead.json")
    parser.add_argument("--peak", choices=list(MEMORY_MODES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        return peak(options.peak, options.memory_batch, options.size)
    result = {
        "time": overhead(options.batch, options.size, options.pairs),
        "memory": memory(options.memory_batch, options.size),
        "settings": {**vars(options), "torch": torch.__version__, "threads": torch.get_num_threads()},
    }
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    Path(options.output).write_text(json.dumps(result, indent=1))
    timed = result["time"]
    print(f"\n{timed['parameters'] / 1e6:.1f}M parameters, {options.size}x{options.size}, batch {options.batch}")
    print(
        f"outer step / bare work: {timed['median_ratio']:.3f} "
        f"(quartiles {timed['quartiles'][0]:.3f} to {timed['quartiles'][1]:.3f}, {timed['pairs']} pairs)"
    )
    for mode, megabytes in result["memory"]["megabytes"].items():
        print(
            f"peak memory, batch {options.memory_batch}, {mode}: {megabytes:.0f} MB, "
            f"{result['memory']['ratio'][mode]:.3f} of plain fine-tuning"
        )


if __name__ == "__main__":
    main()
