"""Fine-tune a copy of a text-to-image model under attack, by the package's own trainer."""

import copy
import tempfile
from collections.abc import Callable
from typing import Any, Literal

import torch
from transformers import TrainerCallback

from ..data.images import ArrayDataset
from ..families import TextToImage, denoiser_of, encode_prompts
from ..methods import FineTune
from ..saliency.ranks import add_lora, choose_lora
from ..training.config import UnlearnConfig
from ..training.trainer import UnlearnTrainer
from .base import Subject, Target
from .pictures import drawing_of, frozen, latents_of_images, shallow

Weights = Literal["full", "lora"]


def trained_text(weights: Weights, rank: int) -> str:
    """What is trained, in words for a budget."""
    return "all weights" if weights == "full" else f"a LoRA of rank {rank}"


class _Watch(TrainerCallback):
    """Ask `stop` after each step, and end the training where it says so."""

    def __init__(self, stop: Callable[[int], bool]):
        self.stop, self.stopped = stop, False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.stop(state.global_step):
            self.stopped = control.should_training_stop = True


def fine_tune(
    subject: Subject,
    data: Target,
    steps: int,
    rate: float,
    batch_size: int,
    seed: int,
    weights: Weights = "full",
    rank: int = 8,
    stop: Callable[[Any, int], bool] | None = None,
) -> tuple[Any, bool]:
    """Fine-tune a copy of the network by AdamW at a constant rate on the images of `data` under their prompts.

    Args:
        weights: all of them, or a LoRA of `rank` on all layers.
        stop: called with the pipeline and the number of steps taken, after each of them; ends the training.

    Returns:
        (the pipeline around the trained copy, whether `stop` ended the training). The other parts are the subject's.
    """
    adapter = denoiser_of(subject.model)
    pipeline = shallow(subject.model, **{adapter.part: copy.deepcopy(adapter.network(subject.model))})
    with frozen(pipeline), torch.random.fork_rng(), tempfile.TemporaryDirectory() as folder:
        texts = data.prompts_of_images
        prompts = encode_prompts(pipeline, texts)
        latents = latents_of_images(pipeline, data.images)
        objective = TextToImage(pipeline, prompts, label_dropout=0.0, resolution=drawing_of(subject).resolution)
        dataset: Any = ArrayDataset(latents, torch.tensor([prompts.number(text) for text in texts]))
        if weights == "lora":
            add_lora(objective, choose_lora(objective, dataset, dataset, "all", rank), seed=seed)
        config = UnlearnConfig.quiet(
            output_dir=folder,
            max_steps=steps,
            learning_rate=rate,
            lr_scheduler_type="constant",
            per_device_train_batch_size=min(batch_size, len(dataset)),
            seed=seed,
            use_cpu=pipeline.device.type == "cpu",
        )
        watch = _Watch(lambda step: stop is not None and _asked(stop, pipeline, step))
        UnlearnTrainer(objective, config, FineTune(), None, dataset, callbacks=[watch]).train()
    return pipeline, watch.stopped


def _asked(stop: Callable[[Any, int], bool], pipeline: Any, step: int) -> bool:
    """What `stop` says, with the network in eval mode while it draws."""
    network = denoiser_of(pipeline).network(pipeline)
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            return stop(pipeline, step)
    finally:
        network.train(training)
