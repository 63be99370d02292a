"""What the published procedure's steps cost, against ours with the same mathematics, model, data and draws.

`Published` restates how the released code does a step: a deep copy of the model at its start, masks on the host that
are moved to the device name by name, and every update, mask and merge one tensor at a time.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from hf_unlearn import SFRon
from hf_unlearn.common.losses import adaptive_mean
from hf_unlearn.evaluation import markdown_table

from .bare import WARM_UP, Pairs
from .page import ratio
from .setting import ForgetPeak, Profile, build, compared, forget_peak, fresh, peak_megabytes, scratch, trainer_for

TITLE = "Against the published procedure's costs"
MODES = ("published", "ours, same mathematics", "ours, preset stable")


class Published:
    """The released procedure (SFR-on, arXiv 2409.19732, for DDPM): one Adam, masked gradients, a merge of rate 1.

    Args:
        objective: what gives the losses; its network is trained.
        masks: bool tensors by name, on the host.
    """

    def __init__(self, objective: Any, masks: dict[str, Tensor], method: SFRon, rate: float, merge_rate: float = 1.0):
        self.objective, self.masks, self.method, self.merge_rate = objective, masks, method, merge_rate
        self.network = objective.network
        # The for-loop implementations: one tensor at a time.
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=rate, foreach=False, fused=False)

    def step(self, batch: dict[str, Any], alpha: float) -> None:
        device = next(self.network.parameters()).device
        slow = copy.deepcopy(self.network)
        loss = -adaptive_mean(self._losses(batch["forget"]), self.method.adaptive_exponent, floor=0.0)
        self.optimizer.zero_grad()
        (alpha * loss).backward()
        for name, p in self.network.named_parameters():
            if p.grad is not None:
                p.grad *= self.masks[name].to(device)
        self._update(self.method.forget_max_norm)
        for retain in batch["retain"]:
            self.optimizer.zero_grad()
            self._losses(retain).mean().backward()
            self._update(1.0)
        with torch.no_grad():
            for old, p in zip(slow.parameters(), self.network.parameters()):
                p.copy_(old + self.merge_rate * (p - old))

    def _losses(self, batch: dict[str, Tensor]) -> Tensor:
        return self.objective(**{k: v for k, v in batch.items() if k != "index"})

    def _update(self, max_norm: float) -> None:
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), max_norm, foreach=False)
        self.optimizer.step()


def reference() -> SFRon:
    return SFRon.from_preset("reference", forget_schedule="constant")


def runs(profile: Profile, folder: str, steps: int, method: SFRon | None = None, batch: int = 0, **config: Any):
    """(trainer, published, call): `call` has `published` take the batch that the trainer last took."""
    method = method or reference()
    options = {"lr_scheduler_type": "constant", **config}
    pipeline = build(profile.width, profile.size)
    trainer = trainer_for(pipeline, method, batch or profile.batch, profile.size, folder, steps, **options)
    twin = type(trainer.objective)(build(profile.width, profile.size)).train()
    published = Published(twin, trainer.masks.tensors, method, trainer.args.learning_rate)
    taken: dict[str, Any] = {}
    begin = trainer.step.begin

    def watched(*args: Any) -> dict[str, Any]:
        taken.update(begin(*args))
        return {**taken}

    trainer.step.begin = watched
    return trainer, published, lambda: published.step(taken, method.forget_alpha)


def measure(profile: Profile) -> dict[str, Any]:
    with scratch() as folder:
        trainer, _, call = runs(profile, folder, profile.pairs + WARM_UP)
        timed = Pairs(call)
        trainer.add_callback(timed)
        trainer.train()
    wide = profile.memory_batches[0]
    return {
        "time": compared(timed.theirs, timed.ours),
        "parameters": sum(p.numel() for p in trainer.objective.network.parameters()),
        "batches": [profile.batch, min(8, wide)],
        "memory": {
            mode: [fresh(peak, profile, mode=mode, batch=b)["mb"] for b in (profile.batch, min(8, wide))]
            for mode in MODES
        },
    }


def peak(profile: Profile, mode: str, batch: int) -> dict[str, Any]:
    """Two outer steps of one mode."""
    with scratch() as folder:
        if mode == "published":
            trainer, published, _ = runs(profile, folder, 2, batch=batch)
            data = iter(trainer.get_train_dataloader())
            generator = torch.Generator().manual_seed(0)
            objective, masks = published.objective, published.masks
            del trainer, published  # its network would count
            published = Published(objective, masks, reference(), 1e-4)
            parts = [next(data) for _ in range(2)]
            forget_peak()
            for part in parts:
                drawn = {**part["forget"], **objective.draw(part["forget"], generator)}
                kept = [{**one, **objective.draw(one, generator)} for one in part["retain"]]
                published.step({"forget": drawn, "retain": kept}, 10.0)
        else:
            method = reference() if mode == MODES[1] else SFRon()
            trainer = trainer_for(
                build(profile.width, profile.size), method, batch, profile.size, folder, 2, guard_steps=0
            )
            trainer.add_callback(ForgetPeak())
            trainer.train()
    return {"mb": peak_megabytes()}


def text(result: dict[str, Any]) -> str:
    time, memory = result["time"], result["memory"]
    rows = [
        [mode, *(f"{value:.0f} MB" for value in values)]
        + [f"{value / other:.2f}" for value, other in zip(values, memory[MODES[0]])]
        for mode, values in memory.items()
    ]
    sizes = result["batches"]
    header = ["", *(f"batch {b}" for b in sizes), *(f"over published, batch {b}" for b in sizes)]
    return f"""The released code copies the model at every step, takes its masks from the host each time and updates
one tensor at a time. Restated with the same losses, draws and weights ({result["parameters"] / 1e6:.1f}M; \
`tests/test_bench.py` compares
the weights after some steps), an outer step of one forget and one retain step takes this many times as long as ours:

{markdown_table(["published / ours", "quartiles", "by CPU time"], [ratio(time)])}

{markdown_table(header, rows)}

On a CPU a mask "on the host" is where it is needed already: moving it costs nothing here, and one transfer of the mask
a step on a GPU."""


def goals(result: dict[str, Any]) -> list[Any]:
    return []
