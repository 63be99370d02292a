"""The model, data and trainers that every section measures on, and how much it measures (`Profile`)."""

import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DModel
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback

from hf_unlearn import ClassConditionalDDPMPipeline, NoisePrediction, UnlearnConfig, UnlearnTrainer, add_lora
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.saliency.ranks import choose_lora


@dataclass(frozen=True)
class Profile:
    """How large and how often. `width` is that of the first of three levels: 128 makes 33M weights, by its square."""

    name: str
    width: int = 128  # of what is timed
    size: int = 32  # height and width of the images
    batch: int = 2  # of what is timed: the smaller, the more the work besides forward and backward shows
    pairs: int = 25  # timed pairs
    memory_width: int = 128
    memory_batches: tuple[int, ...] = (64, 16)
    memory_modes: tuple[str, ...] = ()  # all
    fisher_widths: tuple[int, ...] = (32, 64, 128)
    scale_widths: tuple[int, ...] = (24, 40, 72, 128, 224, 384)
    peak_widths: tuple[int, ...] = (128, 384)
    options_left_out: tuple[str, ...] = ()
    threads: int = 1


TINY = Profile("tiny", 8, 8, 2, 2, 8, (2,), ("stable",), (8,), (8, 16), (8,))
QUICK = Profile(
    "quick",
    size=16,
    pairs=10,
    memory_width=64,
    memory_batches=(64,),
    memory_modes=("stable", "stable, no mask", "stable, beta 0.5", "leanest", "LoRA"),
    fisher_widths=(24, 64, 128),
    scale_widths=(24, 40, 72, 128),
    options_left_out=("torch.compile",),  # minutes of the C++ compiler before the first step
)
PROFILES = {p.name: p for p in (TINY, QUICK, Profile("full"))}


def build(width: int, size: int) -> ClassConditionalDDPMPipeline:
    """A UNet of the DDPM kind; its weights grow with the square of `width`, a multiple of 8, and so does its work."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=size,
        in_channels=3,
        out_channels=3,
        block_out_channels=(width, 2 * width, 5 * width // 2),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=math.gcd(32, width // 2),
        norm_num_groups=math.gcd(32, width // 2),
        num_class_embeds=11,
    )
    return ClassConditionalDDPMPipeline(unet, DDIMScheduler(1000), null_class=10)


def images(count: int, size: int, label: int) -> ArrayDataset:
    generator = torch.Generator().manual_seed(label)
    return ArrayDataset(torch.rand(count, 3, size, size, generator=generator) * 2 - 1, torch.full((count,), label))


def with_lora(pipeline: Any) -> NoisePrediction:
    objective = NoisePrediction(pipeline)
    add_lora(objective, choose_lora(objective, None, None, "all"))
    return objective


def trainer_for(
    model: Any,
    method: Any,
    batch: int,
    size: int,
    folder: str,
    steps: int,
    data: tuple[Any, Any] | None = None,
    **config: Any,
) -> UnlearnTrainer:
    """A trainer of random images, or of `data`, with masks of density one half given, so that none are computed."""
    config = {"learning_rate": 1e-4, "disable_tqdm": True, **config}
    args = UnlearnConfig(output_dir=folder, per_device_train_batch_size=batch, max_steps=steps, **config)
    masks, network = None, getattr(model, "network", None) or model.unet
    if getattr(method, "use_mask", False) is not False and not getattr(model, "adapter", None):
        masks = {name: torch.rand_like(p) < 0.5 for name, p in network.named_parameters() if p.requires_grad}
    forget, retain = data or (images(64, size, 3), images(256, size, 5))
    trainer = UnlearnTrainer(model, args, method, forget, retain, masks=masks)
    trainer.remove_callback(PrinterCallback)
    return trainer


@contextmanager
def scratch():
    with tempfile.TemporaryDirectory() as folder:
        yield folder


# ---- time --------------------------------------------------------------------------------------
@dataclass
class Span:
    """Seconds by the clock, and of this process's threads: the latter hardly notice other work on the machine."""

    clock: float
    cpu: float

    @staticmethod
    def now() -> "Span":
        """What was begun on a GPU is over by then."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return Span(time.perf_counter(), time.process_time())

    def __sub__(self, other: "Span") -> "Span":
        return Span(self.clock - other.clock, self.cpu - other.cpu)


def spent(call: Callable[[], Any]) -> Span:
    start = Span.now()
    call()
    return Span.now() - start


def compared(ours: Sequence[Span], theirs: Sequence[Span]) -> dict[str, Any]:
    """Medians over interleaved pairs, so that what else the machine does falls on both alike."""
    clock = [a.clock / b.clock for a, b in zip(ours, theirs, strict=True)]
    low, median, high = statistics.quantiles(clock, n=4)
    return {
        "ratio": median,
        "quartiles": [low, high],
        "cpu_ratio": statistics.median(a.cpu / b.cpu for a, b in zip(ours, theirs)),
        "seconds": statistics.median(s.clock for s in ours),
        "seconds_of_reference": statistics.median(s.clock for s in theirs),
        "pairs": len(clock),
    }


# ---- fresh processes ---------------------------------------------------------------------------
def forget_peak() -> None:
    """Start the kernel's record of this process's peak resident memory afresh (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


class ForgetPeak(TrainerCallback):
    """The peak is that of the outer steps: what was needed before the first one does not count."""

    def on_train_begin(self, args, state, control, **kwargs):
        forget_peak()


def peak_megabytes() -> float:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def fresh(task: Callable[..., dict], profile: Profile, **arguments: Any) -> dict[str, Any]:
    """What `task`, a function of a module, returns in a process of its own.

    It is forked from one that has only imported the libraries, so that peaks compare and nobody waits for imports.
    """
    # glibc keeps freed blocks below a threshold that grows, and with gaps between them; with a low and fixed one,
    # resident memory is what is in use. At 1 MB the gaps alone took 24 MB of the model of the quick profile.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**16)
    # The server finds modules by the environment alone, and says nothing about those that it does not find.
    paths = [str(Path(__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["speed.libraries"])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_in_process, task, profile, arguments).result()


def _in_process(task: Callable[..., dict], profile: Profile, arguments: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(profile.threads)
    return task(profile, **arguments)
