"""TINA: no text at all. The noise that the unlearned model turns into a given picture of the concept is looked for."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ..methods.base import flag
from .base import Attack, Found, Subject
from .pictures import ask, drawing_of, frozen, latents_of_images, shallow
from .vectors import objective_of, why_no_ddim


@dataclass(frozen=True)
class Tina(Attack):
    """x_t* = argmin_x ‖DDIM_θ(x, t -> t-1, null text) - x_(t-1)*‖²,   from x_0 = the picture to x_T.

    Then the model samples from x_T, without text. The start of each search is the DDIM inversion of x_(t-1)*. After
    arXiv 2603.17828: 25 AdamW steps at each of 50 timesteps. A good enough inversion reconstructs any picture: read it
    beside a concept that was never learnt, the negative control, and not alone.
    """

    name: ClassVar[str] = "tina"
    families: ClassVar[tuple[str, ...]] = ("text_to_image",)
    paper: ClassVar[str] = "arXiv 2603.17828"
    limits: ClassVar[dict[str, str]] = {"timesteps": "[1, inf)", "steps": "[0, inf)", "rate": "(0, inf)"}

    timesteps: int = flag(50, "Timesteps of the inversion and of the sampling.")
    steps: int = flag(25, "Steps of AdamW at each timestep.")
    rate: float = flag(1e-2, "Learning rate of AdamW.")

    @property
    def budget(self) -> str:
        return f"pictures of the concept inverted by {self.steps} steps at each of {self.timesteps} timesteps; no text"

    def unfit(self, model: Any) -> str:
        return why_no_ddim(model)

    def attack(self, subject: Subject, seed: int) -> Found:
        images = subject.target.images
        if not len(images):
            raise ValueError(f"there is no picture of {subject.target.name!r} to invert: give some as `images`")
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(images), generator=generator)[: subject.samples]
        pipeline = shallow(subject.model, scheduler=DDIMScheduler.from_config(subject.model.scheduler.config))
        with frozen(pipeline):
            parts = latents_of_images(pipeline, images[chosen]).split(drawing_of(subject).batch_size)
            noise = torch.cat([self.inverted(pipeline, subject, part) for part in parts])
            drawn = [
                ask(
                    pipeline,
                    [""] * len(part),
                    drawing_of(subject),
                    seed,
                    latents=part,
                    num_inference_steps=self.timesteps,
                    guidance_scale=1.0,
                )
                for part in noise.split(drawing_of(subject).batch_size)
            ]
        return Found(subject.read(torch.cat(drawn)))

    def inverted(self, pipeline: Any, subject: Subject, latents: Tensor) -> Tensor:
        """The noise (N, C, h, w) from which the frozen pipeline comes to `latents` (N, C, h, w) without text."""
        objective = objective_of(pipeline, drawing_of(subject)).to(pipeline.device)
        objective.network.requires_grad_(False)
        scheduler = pipeline.scheduler
        scheduler.set_timesteps(self.timesteps)
        labels = torch.zeros(len(latents), dtype=torch.int64, device=pipeline.device)  # the null prompt

        def predicted(x: Tensor, t: Tensor) -> Tensor:
            return objective.denoise(objective.network, x, t.expand(len(x)).to(x.device), labels)

        x = latents.to(pipeline.device)
        for t in scheduler.timesteps.flip(0):
            before = x
            with torch.no_grad():
                x = _noisier(scheduler, predicted(before, t), t, before)
            x = x.detach().requires_grad_()
            optimizer = torch.optim.AdamW([x], lr=self.rate, weight_decay=0.0)
            for _ in range(self.steps):
                back = scheduler.step(predicted(x, t), t, x).prev_sample
                optimizer.zero_grad()
                (back - before).square().mean(dim=(1, 2, 3)).sum().backward()
                optimizer.step()
            x = x.detach()
        return x


def _noisier(scheduler: Any, prediction: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """x_t of x_(t-1): the deterministic DDIM run backwards (arXiv 2010.02502, section 4.3), with one prediction."""
    earlier = int(t) - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    a = scheduler.alphas_cumprod[earlier] if earlier >= 0 else scheduler.final_alpha_cumprod
    b = scheduler.alphas_cumprod[int(t)]
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        noise, image = prediction, (x - (1 - a).sqrt() * prediction) / a.sqrt()
    elif kind == "v_prediction":
        noise, image = a.sqrt() * prediction + (1 - a).sqrt() * x, a.sqrt() * x - (1 - a).sqrt() * prediction
    else:
        noise, image = (x - a.sqrt() * prediction) / (1 - a).sqrt().clamp(min=1e-3), prediction
    return b.sqrt() * image + (1 - b).sqrt() * noise
