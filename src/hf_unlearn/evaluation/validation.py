"""Pictures of a text-to-image model while it is trained, sent to trackers with every evaluation."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from diffusers.utils import pt_to_pil
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from ..data.images import blur_picture
from ..families.latents import Drawing
from ..training.trainer import UnlearnTrainer
from .concept_pictures import draw_prompts
from .picture_prompts import PictureFlags


class ValidationPictures(TrainerCallback):
    """Draws prompts from the same noise at every evaluation and sends the pictures to the trackers of `report_to`.

        trainer.add_callback(ValidationPictures(trainer, ["a photo of a church"], Drawing()))

    The pictures are those of the weights that are evaluated and saved. Nothing that is trained depends on them: every
    picture has its own generator, and torch's generators, the scheduler and the network's mode are as they were.

    Args:
        trainer: one on a text-to-image pipeline, with `eval_steps` and `report_to`.
        prompts: what is drawn.
        drawing: how; its seed is that of the first picture.
        per_prompt: pictures of each prompt.
        blurred: whether they are blurred beyond recognition, as those of unsafe concepts are.

    Raises:
        ValueError: there is no tracker that takes pictures, or no process holds the whole network.
    """

    def __init__(
        self,
        trainer: UnlearnTrainer,
        prompts: Sequence[str],
        drawing: Drawing,
        per_prompt: int = 4,
        blurred: bool = False,
    ):
        self._names = named_trackers(trainer.args.report_to or ())
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise ValueError("one process draws validation prompts, and here none holds all weights: leave them out")
        self.trainer, self.prompts, self.drawing = trainer, list(prompts), drawing
        self.per_prompt, self.blurred = per_prompt, blurred
        self._trackers: dict[str, GeneralTracker] = {}
        self._shown: set[int] = set()

    @classmethod
    def of(cls, flags: PictureFlags, trainer: UnlearnTrainer, drawing: Drawing, blurred: bool) -> "ValidationPictures":
        """As the flags say."""
        return cls(trainer, flags.validation_prompts or [], drawing, flags.num_validation_images, blurred)

    def on_evaluate(self, args, state, control, **kwargs):
        step = self.trainer.outer_steps
        if not state.is_world_process_zero or step in self._shown:  # the original is evaluated more than once
            return
        self._shown.add(step)
        pictures = self._draw()
        for name in self._names:
            if name not in self._trackers:
                self._trackers[name] = _started(name, self.trainer)
            _send(name, self._trackers[name], pictures, step)

    @torch.no_grad()
    def _draw(self) -> dict[str, list[Any]]:
        """{prompt: PIL images}."""
        objective: Any = self.trainer.objective
        pipeline: Any = objective.exported
        network, scheduler = objective.network, pipeline.scheduler
        training = network.training
        pipeline.scheduler = copy.deepcopy(scheduler)
        try:
            with torch.random.fork_rng():  # `evaluate` has put the weights to evaluate in their place
                network.eval()
                pipeline.to(self.trainer.args.device)
                drawn = draw_prompts(pipeline, self.prompts, self.drawing, self.per_prompt)
        finally:
            pipeline.scheduler = scheduler
            network.train(training)
            objective.release()
        found = {prompt: pt_to_pil(images) for prompt, images in zip(self.prompts, drawn, strict=True)}
        return {p: [blur_picture(i) for i in images] for p, images in found.items()} if self.blurred else found


def check_validation(flags: PictureFlags, report_to: Sequence[str], eval_steps: int | None) -> None:
    """Raise ValueError for validation prompts that are never drawn or that nobody would see."""
    if flags.validation_prompts:
        named_trackers(report_to)
        if not eval_steps:
            raise ValueError("--validation_prompts are drawn at every evaluation: set --eval_steps")
    elif flags.num_validation_images != PictureFlags.num_validation_images:
        raise ValueError("--num_validation_images is for --validation_prompts: set them too")


def named_trackers(report_to: str | Sequence[str]) -> list[str]:
    """The trackers that are named. Raises ValueError unless every one takes pictures, and there is one."""
    names = [report_to] if isinstance(report_to, str) else list(report_to)
    if not [name for name in names if name != "none"]:
        raise ValueError("--validation_prompts are drawn for trackers: set --report_to, to tensorboard for example")
    takes = [name for name, cls in LOGGER_TYPE_TO_CLASS.items() if hasattr(cls, "log_images")]
    other = next((name for name in names if name not in takes), None)
    if other is not None:
        raise ValueError(f"report_to {other} takes no pictures through accelerate, these do: {', '.join(takes)}")
    return names


def _started(name: str, trainer: UnlearnTrainer) -> GeneralTracker:
    """accelerate's tracker, beside transformers' callback of that name: TensorBoard's files lie in the same folder,
    and Weights & Biases gives the run that is open."""
    cls: Any = LOGGER_TYPE_TO_CLASS[name]
    folder = next(
        (c.logging_dir for c in trainer.callback_handler.callbacks if isinstance(c, TensorBoardCallback)), None
    )
    place = Path(folder or trainer.args.output_dir or ".")
    if cls.requires_logging_directory:
        tracker = cls(place.name, logging_dir=str(place.parent))
    else:
        tracker = cls(trainer.args.run_name or place.name)
    if hasattr(tracker, "start"):
        tracker.start()
    return tracker


def _send(name: str, tracker: Any, pictures: dict[str, list[Any]], step: int) -> None:
    shown = {f"validation/{prompt}": images for prompt, images in pictures.items()}
    if name == "tensorboard":
        arrays = {tag: np.stack([np.asarray(image) for image in images]) for tag, images in shown.items()}
        tracker.log_images(arrays, step=step, dataformats="NHWC")
        tracker.tracker.flush()
    else:  # wandb counts steps of its own, and drops what comes with an earlier one
        tracker.log_images(shown, step=None if name == "wandb" else step)
