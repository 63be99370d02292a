"""One process of the two-process test: METHOD FOLDER BATCH."""

import os
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import config, tiny_pipeline  # noqa: E402

from hf_unlearn import NegGradPlus, NoisePrediction, SFRon, UnlearnTrainer, split_by_label  # noqa: E402
from hf_unlearn.images import ArrayDataset  # noqa: E402

METHODS = {
    "sfron": SFRon(),
    "ascent": SFRon(forget_loss="ascent", slow_form="lookahead", slow_rate=0.5, retain_steps=2),
    "neg_grad_plus": NegGradPlus(),
    "evaluated": SFRon(),  # before the first step and during the run
    "diverges": NegGradPlus(),
}

if __name__ == "__main__":
    method, folder, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
    generator = torch.Generator().manual_seed(1)
    images = ArrayDataset(torch.rand(20, 1, 8, 8, generator=generator) * 2 - 1, torch.arange(20) % 4)
    objective = NoisePrediction(tiny_pipeline(), antithetic=True)
    # A larger epsilon keeps Adam from blowing rounding errors of near-zero gradients up to whole steps.
    values = config(folder, per_device_train_batch_size=batch, adam_epsilon=1e-4, use_cpu=True)
    if method == "evaluated":
        values.eval_strategy, values.eval_steps = "steps", 2
    trainer = UnlearnTrainer(objective, values, METHODS[method], *split_by_label(images, 1))
    if method == "diverges":
        images.pixel_values[images.label_tensor == 1] = float("nan")  # after the check at construction
        save = objective.save_pretrained
        objective.save_pretrained = lambda folder: (time.sleep(3), save(folder))  # the other process waits for it
    print(f"world size {trainer.args.world_size}", flush=True)
    trainer.train()
    trainer.save_model()
    sys.stdout.flush()
    os._exit(0)  # at a normal exit torch now and then aborts a gloo process on a busy machine
