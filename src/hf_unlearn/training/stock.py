"""The private methods of transformers' Trainer that UnlearnTrainer overrides, and why no public one would do.

`tests/test_stock.py` compares their signatures with the installed transformers.
"""

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
    """Have accelerate wrap a model again that was only evaluated so far: processes would not synchronise gradients."""
    if trainer.args.world_size > 1 and trainer.model_wrapped is trainer.model:
        model, accelerator = trainer.model, trainer.accelerator
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        accelerator._models.clear()
        object.__setattr__(model, "_is_accelerate_prepared", False)
