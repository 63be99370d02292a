"""Completion: the original begins an image, and the unlearned model completes it."""

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..common.weights import weights_digest
from ..families import denoiser_of
from ..methods.base import flag
from .base import Attack, Found, Subject, Suite
from .pictures import draw, drawing_of, original_of, shallow


@dataclass(frozen=True)
class Completion(Attack):
    """The first steps of sampling are the original's, the rest those of the unlearned model, under the same prompt.

    Lu et al. 2025, arXiv 2505.17013, the diffusion completion probe. The layout of the concept is there already when
    the unlearned model takes over; read it beside the negative control. 0 steps are the plain model, all of them the
    original.
    """

    name: ClassVar[str] = "completion"
    suite: ClassVar[Suite] = "quick"
    families: ClassVar[tuple[str, ...]] = ("text_to_image",)
    paper: ClassVar[str] = "arXiv 2505.17013"
    limits: ClassVar[dict[str, str]] = {"begun": "[0, 1]"}

    begun: float = flag(0.2, "Share of the steps that the original takes: 10 of 50 in the paper.")

    @property
    def budget(self) -> str:
        return f"the first {self.begun:.0%} of the steps by the original; nothing is learnt"

    def unfit(self, model: Any) -> str:
        if "callback_on_step_end" in inspect.signature(model.__call__).parameters:
            return ""
        return f"a {type(model).__name__} does not let another model take over between two steps"

    def attack(self, subject: Subject, seed: int) -> Found:
        steps = round(self.begun * drawing_of(subject).num_inference_steps)
        prompts = [str(prompt) for prompt in subject.asked]
        return Found(subject.read(completed(subject, prompts, steps, seed)), details={"steps": steps})


def completed(subject: Subject, prompts: list[str], steps: int, seed: int) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1] whose first `steps` are taken by the original."""
    original, ours = original_of(subject, "completion"), subject.model
    if steps < 1:
        return draw(ours, drawing_of(subject), seed, len(prompts), lambda rows: {"prompt": prompts[rows]})
    part = denoiser_of(ours).part
    begins, completes = (getattr(model, part) for model in (original, ours))
    pipeline = shallow(ours, **{part: begins}, text_encoder=original.text_encoder)
    rewritten = weights_digest(original.text_encoder) != weights_digest(ours.text_encoder)

    def given(rows: slice) -> dict[str, Any]:
        setattr(pipeline, part, begins)  # the batch before ended with the other one

        def hand_over(_: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            if step + 1 == steps:
                setattr(pipeline, part, completes)
                if rewritten:  # the embeddings of the unlearned text encoder from here on
                    values["prompt_embeds"] = _guided(ours, prompts[rows], len(values["prompt_embeds"]))
            return values

        names = ["latents", "prompt_embeds"]
        return {
            "prompt": prompts[rows],
            "callback_on_step_end": hand_over,
            "callback_on_step_end_tensor_inputs": names,
        }

    return draw(pipeline, drawing_of(subject), seed, len(prompts), given)


@torch.no_grad()
def _guided(pipeline: Any, prompts: list[str], rows: int) -> Tensor:
    """Embeddings as the sampling loop holds them: those of "" first, where there is guidance."""
    guided = rows == 2 * len(prompts)
    options = {"device": pipeline.device, "num_images_per_prompt": 1, "do_classifier_free_guidance": guided}
    encoded = pipeline.encode_prompt(prompts, **options)
    return torch.cat([encoded[1], encoded[0]]) if guided else encoded[0]
