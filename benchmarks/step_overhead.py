"""What an outer step costs beyond its forwards, backwards and optimizer steps, and how much memory it takes.

    python benchmarks/step_overhead.py            (--quick: a minute, rough figures)

Time: after each outer step of UnlearnTrainer (SFR-on defaults, masks on, data loading and logging included) the same
process runs the bare work on a second copy of the model; the ratio is the median over these pairs. Memory: peak
resident memory of the outer steps in fresh processes, over a hand-written fine-tuning loop at the same batch. The
mask preparation before the first step is no part of a step; its own peak is printed on a line of its own.
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
from torch.nn.utils import clip_grad_norm_
from transformers import TrainerCallback

from hf_unlearn import ClassConditionalDDPMPipeline, FineTune, SFRon, UnlearnConfig, UnlearnTrainer
from hf_unlearn.images import ArrayDataset

PLAIN, PREPARATION = "hand-written fine-tuning", "mask preparation alone"
MEMORY_MODES = {
    PLAIN: None,
    "finetune method": None,
    "stable": {},
    "stable, no mask": {"use_mask": False},
    "stable, retain on the data": {"retain_loss": "data"},
    "stable, shared optimizer": {"forget_optim": "shared"},
    "stable, beta 0.5": {"slow_rate": 0.5},
    "stable, shared optimizer, retain on the data": {"forget_optim": "shared", "retain_loss": "data"},
    PREPARATION: None,
}
WARM_UP = 2


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


def trainer_for(method, batch: int, size: int, folder: str, steps: int, **config) -> UnlearnTrainer:
    """A trainer with masks of density one half given, so that none are computed."""
    config = UnlearnConfig(
        output_dir=folder,
        per_device_train_batch_size=batch,
        max_steps=steps,
        disable_tqdm=True,
        learning_rate=1e-4,
        **config,
    )
    pipeline = build(size)
    masks = {name: torch.rand_like(p) < 0.5 for name, p in pipeline.unet.named_parameters()}
    masks = masks if getattr(method, "use_mask", False) else None
    return UnlearnTrainer(pipeline, config, method, images(64, size, 3), images(256, size, 5), masks=masks)


class Bare:
    """The work an outer step contains and nothing else.

    That is K + 1 forwards, backwards, clips and Adam steps and one forward without gradient for each target: the
    anchor's, and the original's for the retain batches. `forget=False` is plain fine-tuning: one step, no target.
    """

    def __init__(self, batch: int, size: int, retain_steps: int = 0, forget: bool = True):
        self.unet = build(size).unet.train()
        self.original = build(size).unet.eval().requires_grad_(False) if forget else None
        adam = {"lr": 1e-4, "weight_decay": 0, "fused": True}
        self.optimizers = [torch.optim.AdamW(self.unet.parameters(), **adam) for _ in range(1 + forget)]
        self.parts = [True] * forget + [False] * max(retain_steps, 1)
        self.x, self.t = torch.randn(batch, 3, size, size), torch.randint(0, 1000, (batch,))
        self.labels, self.anchor = torch.full((batch,), 3), torch.full((batch,), 4)

    def step(self) -> None:
        for forget in self.parts:
            target = self.x
            if self.original is not None:
                network, labels = (self.unet, self.anchor) if forget else (self.original, self.labels)
                with torch.no_grad():
                    target = network(self.x, self.t, class_labels=labels).sample
            (self.unet(self.x, self.t, class_labels=self.labels).sample - target).pow(2).mean().backward()
            clip_grad_norm_(self.unet.parameters(), 1.0)
            self.optimizers[forget].step()
            self.optimizers[forget].zero_grad()


class Pairs(TrainerCallback):
    """Times every outer step (from the end of the last bare step on), then one bare step."""

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
        trainer = trainer_for(SFRon(), batch, size, folder, pairs + WARM_UP)
        timed = Pairs(Bare(batch, size, trainer.method.retain_steps))
        trainer.add_callback(timed)
        trainer.train()
    ours, theirs = timed.ours[WARM_UP:], timed.theirs[WARM_UP:]
    ratios = [a / b for a, b in zip(ours, theirs)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return {
        "parameters": sum(p.numel() for p in timed.bare.unet.parameters()),
        "median_ratio": median,
        "quartiles": [low, high],
        "ratio_of_sums": sum(ours) / sum(theirs),
        "seconds_per_outer_step": statistics.median(ours),
        "seconds_per_bare_step": statistics.median(theirs),
        "pairs": len(ratios),
    }


def forget_peak() -> None:
    """Start the kernel's record of this process's peak resident memory afresh (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


class ForgetPeak(TrainerCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        forget_peak()


def peak(mode: str, batch: int, size: int) -> None:
    """Run two steps of one mode and print their peak resident memory in MB, the interpreter's own included.

    Every step measures the drift outside the mask and takes the guard's snapshot, so that these count.
    """
    if mode == PLAIN:
        bare = Bare(batch, size, forget=False)
        forget_peak()
        bare.step()
        bare.step()
    else:
        method = FineTune() if mode == "finetune method" else SFRon(**(MEMORY_MODES[mode] or {}))
        with tempfile.TemporaryDirectory() as folder:
            trainer = trainer_for(method, batch, size, folder, 2, guard_steps=1, verify_mask_steps=1)
            if mode == PREPARATION:  # one chunk of each set, of the default size
                forget_peak()
                method.fisher_samples = method.fisher_batch_size
                method.masks(trainer.objective, trainer.forget_dataset, trainer.retain_dataset, 0)
            else:
                trainer.add_callback(ForgetPeak)
                trainer.train()
    status = Path("/proc/self/status").read_text()
    print("PEAK", int(status.split("VmHWM:")[1].split()[0]) / 1024)


def memory(batch: int, size: int, modes: list[str]) -> dict:
    figures = {}
    for mode in modes:
        command = [sys.executable, __file__, "--peak", mode, "--memory_batch", str(batch), "--size", str(size)]
        command += ["--threads", str(torch.get_num_threads())]
        # glibc keeps freed blocks below a threshold that grows; with a fixed one, resident memory is what is in use.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        figures[mode] = float(done.stdout.split("PEAK")[1])
        ratio = "" if mode == PREPARATION else f", {figures[mode] / figures[PLAIN]:.3f} of {PLAIN}"
        print(f"peak memory, batch {batch}, {mode}: {figures[mode]:.0f} MB{ratio}", flush=True)
    ratios = {mode: value / figures[PLAIN] for mode, value in figures.items() if mode != PREPARATION}
    return {"batch": batch, "megabytes": figures, "ratio": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=27, help="timed pairs; over 25 they meet a snapshot and a check")
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=2, help="of the timed steps")
    parser.add_argument("--memory_batch", type=int, nargs="+", default=[16, 64], help="of the memory figures")
    parser.add_argument("--memory_modes", nargs="+", default=list(MEMORY_MODES), choices=list(MEMORY_MODES))
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--quick", action="store_true", help="5 pairs, 16x16 images, memory of 'stable' at batch 4")
    parser.add_argument("--output", default="benchmarks/results/step_overhead.json")
    parser.add_argument("--peak", choices=list(MEMORY_MODES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        return peak(options.peak, options.memory_batch[0], options.size)
    if options.quick:
        options.pairs, options.size, options.memory_batch = 5, 16, [4]
    timed = overhead(options.batch, options.size, options.pairs)
    print(
        f"\n{timed['parameters'] / 1e6:.1f}M parameters, {options.size}x{options.size}, batch {options.batch}, "
        f"{options.threads} threads\nouter step / bare work: {timed['median_ratio']:.3f} (quartiles "
        f"{timed['quartiles'][0]:.3f} to {timed['quartiles'][1]:.3f}, {timed['pairs']} pairs, sums "
        f"{timed['ratio_of_sums']:.3f}), {timed['seconds_per_outer_step']:.2f} s"
    )
    modes = [PLAIN, "stable"] if options.quick else list(dict.fromkeys([PLAIN, *options.memory_modes]))
    result = {
        "time": timed,
        "memory": [memory(batch, options.size, modes) for batch in options.memory_batch],
        "settings": {k: v for k, v in vars(options).items() if k not in ("peak", "output")},
        "torch": torch.__version__,
    }
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    Path(options.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
