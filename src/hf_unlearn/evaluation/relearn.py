"""Relearning: how soon a classifier learns the forgotten data again, the cheapest attack on an unlearned model."""

import copy
import tempfile
from typing import Any

from transformers import PreTrainedModel, TrainerCallback

from ..common.losses import spread
from ..data.pairs import subset
from ..data.protocols import SizedDataset
from ..methods import FineTune
from ..training.config import UnlearnConfig
from ..training.trainer import UnlearnTrainer
from .classification import Predictions, accuracy, predictions
from .metric import Metric, version_of


class _StopAt(TrainerCallback):
    """Stop once the accuracy on `data` is back at `target`."""

    def __init__(self, model: PreTrainedModel, data: SizedDataset, target: float):
        self.model, self.data, self.target, self.reached = model, data, target, False

    def on_step_end(self, args, state, control, **kwargs):
        if accuracy(predictions(self.model, self.data)).number >= self.target:
            self.reached = control.should_training_stop = True


def relearn(
    model: PreTrainedModel,
    forget: SizedDataset,
    target: float,
    learning_rate: float = 1e-4,
    batch_size: int = 64,
    max_steps: int = 50,
    seed: int = 0,
    max_samples: int = 1000,
) -> tuple[Metric, Predictions]:
    """Fine-tune a copy of the model on the forget data until its accuracy is `target` again.

    Returns:
        (the metric of `relearn_steps`, what the copy predicts in the end for the samples that were watched).
    """
    student, watched = copy.deepcopy(model), subset(forget, spread(len(forget), max_samples))
    steps, reached = 0, accuracy(predictions(student, watched)).number >= target
    if not reached:
        stop = _StopAt(student, watched, target)
        with tempfile.TemporaryDirectory() as folder:
            config = UnlearnConfig.quiet(
                output_dir=folder,
                max_steps=max_steps,
                learning_rate=learning_rate,
                lr_scheduler_type="constant",
                per_device_train_batch_size=batch_size,
                seed=seed,
            )
            data: Any = forget  # transformers asks for torch's Dataset by name
            trainer = UnlearnTrainer(student, config, FineTune(), None, data, callbacks=[stop])
            trainer.train()
        steps, reached = trainer.state.global_step, stop.reached
    definition = f"AdamW steps (rate {learning_rate}, batch {batch_size}) until forget accuracy {target:.3f} is back"
    details = {"reached": bool(reached), "max_steps": max_steps, "seed": seed}
    metric = Metric(float(steps), definition, len(watched), version_of("torch", "transformers"), details)
    return metric, predictions(student, watched)


def relearn_steps(model: PreTrainedModel, forget: SizedDataset, target: float, **options: Any) -> Metric:
    """Count the steps of fine-tuning on the forget data until its accuracy is `target` again, 0 if it already is.

    The optimizer is AdamW at a constant rate, on a copy of the model. A run that does not reach the target counts
    `max_steps`, and details["reached"] is False. The accuracy is that of at most `max_samples` forget samples, evenly
    spread. Compare the count with that of a retrained model, which has to learn the data for the first time.

    Args:
        options: of `relearn`: learning_rate, batch_size, max_steps, seed and max_samples.
    """
    return relearn(model, forget, target, **options)[0]
