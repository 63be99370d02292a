"""The private methods of transformers' Trainer that UnlearnTrainer overrides, and why no public one would do.

`tests/test_stock.py` compares their signatures with the installed transformers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import Trainer

CHECKED_WITH = "5.24"  # the newest transformers that each override was last read against

OVERRIDDEN = {
    "_save_checkpoint": "No public method sees both ends of a save: the manifest is written last, then old ones go.",
    "_save_optimizer_and_scheduler": "accelerate writes shards as pickles; ours are safetensors.",
    "_load_from_checkpoint": "The counterpart for sharded weights.",
    "_load_optimizer_and_scheduler": "The counterpart for sharded optimizer states.",
}


def stock_optimizer(stock: Any, model: Any) -> torch.optim.Optimizer:
    """Have `stock`, a trainer's super(), create the optimizer. Older versions pass no model and take none."""
    return stock.create_optimizer() if model is None else stock.create_optimizer(model)


def reset_accelerate_wrapping(trainer: Trainer) -> None:
    """Take off what accelerate has put around a model that was only evaluated: autocast on its forward.

    Training then wraps it anew; processes would not synchronise their gradients otherwise.
    """
    if trainer.model_wrapped is trainer.model and getattr(trainer.model, "_is_accelerate_prepared", False):
        model, accelerator = trainer.model, trainer.accelerator
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        accelerator._models.clear()
        object.__setattr__(model, "_is_accelerate_prepared", False)


@contextmanager
def undisturbed(trainer: Trainer) -> Iterator[None]:
    """Inside, an evaluation changes nothing that a training after it, or around it, depends on.

    A model that was not wrapped before is not afterwards, and torch's generator, from which a data loader draws its
    seed and dropout its units, goes on where it was.
    """
    prepared = getattr(trainer.model, "_is_accelerate_prepared", False)
    with torch.random.fork_rng(devices=()):
        yield
    if not prepared:
        reset_accelerate_wrapping(trainer)
