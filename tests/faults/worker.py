"""Trains in a child process that dies by SIGKILL, at an event of a phase or after some CPU time. Imports once.

JSON lines in: {"run": "tiny", "clu" or "sd", "folder": ..., "kill": [phase, n] or "cpu": seconds}, and out: {"status"
of os.wait, "cpu", "events" by phase}.
"""

import io
import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import torch
import unlearn_sd
from conftest import config, random_images, tiny_pipeline

from hf_unlearn import CLU, SFRon, UnlearnTrainer, split_by_label
from hf_unlearn.cli import parsing as cli
from hf_unlearn.common import files
from hf_unlearn.data.pairs import subset
from hf_unlearn.families import latents
from hf_unlearn.report.record import RunRecord
from hf_unlearn.saliency.squares import Squares
from hf_unlearn.saving import export as storage
from hf_unlearn.training import step as loop

SD = """--concept nudity --num_forget_images 8 --num_retain_images 4 --num_inference_steps 2 --max_train_steps 7
--eval_profile quick --num_eval_images 2 --safety_detector none --checkpointing_steps 2 --checkpoints_total_limit 1
--eval_steps 3 --fisher_samples 4 --fisher_batch_size 2 --learning_rate 1e-3 --resume_from_checkpoint auto""".split()


def tiny(folder: str) -> None:
    saves = dict(max_steps=5, save_strategy="steps", save_steps=2, save_total_limit=1)
    made = config(folder, **saves, eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=64)
    method = SFRon(fisher_samples=4, fisher_batch_size=2)
    trainer = UnlearnTrainer(tiny_pipeline(), made, method, *split_by_label(random_images(), 1))
    trainer.train(resume_from_checkpoint="auto")
    trainer.save_model()


def clu(folder: str) -> None:
    """It learns a part of what `tiny` retains, at a strength that it finds."""
    saves = dict(max_steps=5, save_strategy="steps", save_steps=2, save_total_limit=1, learning_rate=None)
    forget, rest = split_by_label(random_images(), 1)
    learn, retain = (subset(rest, list(range(start, len(rest), 3))) for start in (0, 1))
    method = CLU(fisher_samples=4, fisher_batch_size=2, slow_rate=0.5)
    trainer = UnlearnTrainer(tiny_pipeline(), config(folder, **saves), method, forget, retain, learn_dataset=learn)
    trainer.train(resume_from_checkpoint="auto")
    trainer.save_model()


def sd(folder: str) -> None:
    model = Path(folder).parent / "model"
    sys.argv = ["unlearn_sd.py", "--pretrained_model_name_or_path", str(model), "--output_dir", folder, *SD]
    cli.run(unlearn_sd.main)


class Events:
    """Counts events by phase, and dies at the one that was asked for."""

    def __init__(self, kill: list | None, report: int):
        self.kill, self.report, self.counts, self.inside = kill, report, Counter(), None

    def happens(self, phase: str) -> bool:
        self.counts[phase] += 1
        return self.kill is not None and [phase, self.counts[phase]] == self.kill

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def tell(self) -> None:
        os.write(self.report, json.dumps(self.counts).encode())

    def at(self, owner, name: str, phase: str | None = None) -> None:
        """An event at each call; without a phase it belongs to the one that runs (`within`), if any does."""
        stock = getattr(owner, name)

        def call(*args, **kwargs):
            if (phase or self.inside) and self.happens(phase or self.inside):
                self.die()
            return stock(*args, **kwargs)

        setattr(owner, name, call)

    def within(self, owner, name: str, phase: str) -> None:
        stock = getattr(owner, name)

        def call(*args, **kwargs):
            before, self.inside = self.inside, phase
            try:
                return stock(*args, **kwargs)
            finally:
                self.inside = before

        setattr(owner, name, call)

    def torn_saves(self) -> None:
        """torch.save is an event too; killed there, it leaves half of its file."""
        stock = torch.save

        def call(value, path, *args, **kwargs):
            if self.inside and self.happens(self.inside):
                whole = io.BytesIO()
                stock(value, whole)
                Path(path).write_bytes(whole.getvalue()[: whole.tell() // 2])
                self.die()
            return stock(value, path, *args, **kwargs)

        torch.save = call


def watch(kill: list | None, report: int) -> Events:
    events = Events(kill, report)
    events.at(latents.Cache, "write", "draw")
    events.at(Squares, "add", "fisher")
    events.at(loop.Step, "fast_step", "step")
    events.at(loop.Step, "learn_step", "step")
    events.at(UnlearnTrainer, "compute_loss", "step")
    events.at(UnlearnTrainer, "prediction_step", "evaluate")
    events.at(RunRecord, "write", "record")
    events.within(UnlearnTrainer, "_save_checkpoint", "save")
    events.within(UnlearnTrainer, "save_model", "save")
    events.at(files, "sync")
    events.at(storage, "check_reload")
    events.torn_saves()
    return events


def run(order: dict) -> dict:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        null = os.open(f"{order['folder']}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(null, 1)
        os.dup2(null, 2)
        events, code = watch(order.get("kill"), writing), 1
        try:
            {"tiny": tiny, "clu": clu, "sd": sd}[order["run"]](order["folder"])
            code = 0
        except SystemExit as stop:
            code = stop.code
        except Exception:
            traceback.print_exc()
        finally:
            events.tell()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    while "cpu" in order and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        spent = Path(f"/proc/{child}/stat").read_text().rsplit(") ", 1)[1].split()
        if (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK") >= order["cpu"]:
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.005)
    _, status, usage = os.wait4(child, 0)
    told = os.read(reading, 65536)
    os.close(reading)
    return {"status": status, "cpu": usage.ru_utime + usage.ru_stime, "events": json.loads(told or b"{}")}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
