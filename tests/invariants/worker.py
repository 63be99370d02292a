"""One process of the tests with two: FOLDER METHODS, a comma between them, and flags; all below.

Each method runs in FOLDER/METHOD, one after the other, so that a launch imports once for all of them.
"""

import argparse
import os
import time
from pathlib import Path

import torch
from conftest import config, tiny_pipeline
from safetensors.torch import save_file

from hf_unlearn import (
    CLU,
    LUR,
    FineTune,
    MUNBa,
    NegGradPlus,
    NoisePrediction,
    SFRon,
    UnlearnConfig,
    UnlearnTrainer,
    split_by_label,
)
from hf_unlearn.cli import parsing as cli
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.data.pairs import subset
from hf_unlearn.saliency.fisher import fisher

METHODS = {
    "sfron": SFRon(),
    "ascent": SFRon(forget_loss="ascent", slow_form="lookahead", slow_rate=0.5, retain_steps=2),
    "shared": SFRon(forget_optim="shared", slow_rate=0.5),
    "ema": SFRon(slow_form="ema", slow_rate=0.3),
    "neg_grad_plus": NegGradPlus(),
    "munba": MUNBa(),
    "evaluated": SFRon(),  # before the first step and during the run
    "diverges": NegGradPlus(),
    "streamed": SFRon(use_mask=False, retain_steps=1),
    "found": SFRon(adversary=False),  # without a learning rate
    "found_adversary": SFRon(),
    "found_adversary_pair": SFRon(),  # a global batch of two
    # A longer step adds rounding.
    "found_resists": SFRon(adversary=False, resist_relearning=0.5, relearning_rate=1e-4),
    "lur": LUR(),
    "lur_first_order": LUR(form="first_order"),
    "clu": CLU(),
    "found_clu": CLU(slow_rate=0.5),
    "found_learns": CLU(),  # it has nothing to forget
    "finetune_learns": FineTune(),
    "found_ascent": SFRon(forget_loss="ascent", slow_rate=0.5),
}


def louder(data) -> ArrayDataset:
    """The samples with pixels four times as large: the network loses more on them than on others."""
    pictures = torch.stack([4 * data[i]["pixel_values"] for i in range(len(data))])
    return ArrayDataset(pictures, torch.tensor([data[i]["labels"] for i in range(len(data))]))


def streamed(retain, processes: int):
    """`retain` as a stream of one shard. Two processes read every other sample of it: a global batch of eight
    is 0 2 4 6 | 1 3 5 7, and one process is given the samples in this order."""
    import datasets

    order = list(range(len(retain)))
    if processes == 1:
        order = [start + i for start in range(0, len(order), 8) for i in (0, 2, 4, 6, 1, 3, 5, 7)]
    rows = datasets.Dataset.from_dict({"place": order}).to_iterable_dataset()
    return rows.map(lambda row: retain[row["place"]], remove_columns=["place"])


def shard() -> None:
    """Have accelerate cut the weights as scripts/accelerate/fsdp2.yaml does. It leaves FSDP out on CPUs, where torch
    has it, so the processes are passed off as some accelerator's."""
    from accelerate.state import DistributedType, PartialState

    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_XPU
    wrap = {"FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_TRANSFORMER_CLS_TO_WRAP": "ResnetBlock2D"}
    os.environ.update(ACCELERATE_USE_FSDP="true", FSDP_VERSION="2", FSDP_RESHARD_AFTER_FORWARD="true", **wrap)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("methods", type=lambda text: text.split(","))
    parser.add_argument("--fsdp", action="store_true")
    parser.add_argument("--resume", help="the checkpoint, for each method below its folder")
    parser.add_argument("--into", default="", help="a folder below the method's")
    parser.add_argument("--save_steps", type=int)
    parser.add_argument("--files", action="store_true", help="write masks.safetensors and fisher.safetensors too")
    options = parser.parse_args()
    # A larger epsilon keeps Adam from blowing rounding errors of near-zero gradients up to whole steps.
    steady = dict(adam_epsilon=1e-4, use_cpu=True)
    rates = {method: {"learning_rate": None} if method.startswith("found") else {} for method in options.methods}
    every = {m: config(options.folder / m / options.into, **steady, **rate) for m, rate in rates.items()}
    if options.fsdp:
        shard()  # after the arguments, which find the processes
    for method, values in every.items():
        run(method, options.folder / method, values, options)


def run(method: str, folder: Path, values: UnlearnConfig, options: argparse.Namespace) -> None:
    generator = torch.Generator().manual_seed(1)
    images = ArrayDataset(torch.rand(20, 1, 8, 8, generator=generator) * 2 - 1, torch.arange(20) % 4)
    objective = NoisePrediction(tiny_pipeline(), antithetic=True)
    values.per_device_train_batch_size = (2 if method.endswith("pair") else 8) // values.world_size
    if method == "evaluated":
        values.eval_strategy, values.eval_steps = "steps", 2
    if options.save_steps:
        values.save_strategy, values.save_steps, values.verify_mask_steps = "steps", options.save_steps, 1
    forget, retain = split_by_label(images, 1)
    if method == "streamed":
        retain = streamed(ArrayDataset(images.pixel_values[4:], torch.full((16,), 2)), values.world_size)
    learn = None
    if method.endswith(("clu", "learns")):
        learn = louder(split_by_label(retain.dataset, 2)[0])
        retain = subset(images, [i for i in range(20) if i % 4 in (0, 3)])
    forgets = None if method.endswith("learns") else forget
    trainer = UnlearnTrainer(objective, values, METHODS[method], forgets, retain, learn_dataset=learn)
    assert (trainer.step.strength is not None) == method.startswith("found")
    if method == "diverges":
        images.pixel_values[images.label_tensor == 1] = float("nan")  # after the check at construction
        save = objective.save_pretrained
        objective.save_pretrained = lambda folder: (time.sleep(3), save(folder))  # the other process waits for it
    if options.files:
        folder.mkdir(parents=True, exist_ok=True)
        found, _ = fisher(objective, trainer.forget_dataset or trainer.learn_dataset, forget=True, batch_size=2)
        if trainer.is_world_process_zero():
            save_file(found, folder / "fisher.safetensors")
    print(f"world size {trainer.args.world_size}", flush=True)
    trainer.train(resume_from_checkpoint=str(folder / options.resume) if options.resume else None)
    trainer.save_model()
    if trainer.is_world_process_zero():
        if options.files and trainer.masks is not None:
            trainer.masks.save(folder / "masks.safetensors")
        drift = trainer.verify_mask()
        print(f"{method}: sharded {trainer.is_fsdp_enabled} drift {drift}", flush=True)


if __name__ == "__main__":
    cli.run(main)
