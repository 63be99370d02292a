"""Every method against a hand-written loop that gets the same batches and draws, <= 1e-6 after four outer steps."""

import math
import sys
from pathlib import Path

import pytest
import torch

from hf_unlearn import METHODS, NoisePrediction, UnlearnTrainer, split_by_label
from hf_unlearn.saliency import fisher

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import config, tiny_pipeline  # noqa: E402

# A larger epsilon keeps Adam from blowing rounding errors of near-zero gradients up to whole steps.
LR, STEPS, EPS = 1e-3, 4, 1e-4


class Recording(UnlearnTrainer):
    """Keeps the batches, with their draws, that the method is given."""

    seen: list

    def _with_draws(self, batch, generator, forget, split=True):
        made = super()._with_draws(batch, generator, forget, split)
        if split:
            self.seen.append((forget, {k: v.clone() for k, v in made.items()}))
        return made


def unlearn(tmp_path, images, method, **values):
    trainer = Recording(
        tiny_pipeline(),
        config(tmp_path, max_steps=STEPS, adam_epsilon=EPS, **values),
        method,
        *split_by_label(images, 1),
    )
    trainer.seen = []
    trainer.train()
    return trainer


def squared_error(pipeline, batch, labels=None, target=None):
    """(B,) mean squared error of the noise prediction, written with diffusers' scheduler."""
    noisy = pipeline.scheduler.add_noise(batch["pixel_values"], batch["noise"], batch["timesteps"])
    labels = torch.where(batch["drop_labels"], 4, batch["labels"]) if labels is None else labels
    out = pipeline.unet(noisy, batch["timesteps"], class_labels=labels).sample
    return ((out - (batch["noise"] if target is None else target)) ** 2).mean((1, 2, 3))


def agree(trainer, pipeline):
    ours, hand = trainer.objective.network.state_dict(), pipeline.unet.state_dict()
    assert max((ours[n] - hand[n]).abs().max().item() for n in ours) <= 1e-6
    start = tiny_pipeline().unet.state_dict()
    assert max((ours[n] - start[n]).abs().max().item() for n in ours) > 1e-4


def step(optimizer, loss, max_norm=1.0, masks=None):
    optimizer.zero_grad()
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    for p in parameters if masks is not None else ():
        p.grad *= masks[p]
    optimizer.step()


def sfron_hand(trainer, images, bound=True, retain_steps=1, beta=1.0, match=False):
    """Algorithm 1 with two Adams, masked updates, Lookahead merge."""
    pipeline = tiny_pipeline()
    unet, method = pipeline.unet.train(), trainer.method
    forget_set, retain_set = split_by_label(images, 1)
    objective = NoisePrediction(tiny_pipeline())
    f, r = (
        fisher(objective, s, forget=g, max_samples=512, seed=42)[0]
        for s, g in ((forget_set, True), (retain_set, False))
    )
    masks = {p: (f[n] > 0) & (f[n] >= r[n]) for n, p in unet.named_parameters()}
    retain_adam = torch.optim.AdamW(unet.parameters(), lr=LR, eps=EPS, weight_decay=0.0)
    forget_adam = torch.optim.AdamW(unet.parameters(), lr=LR, eps=EPS, weight_decay=0.0)
    queue = iter(trainer.seen)
    for t in range(STEPS):
        slow = [p.detach().clone() for p in unet.parameters()]
        is_forget, batch = next(queue)
        assert is_forget
        if match:
            anchor = torch.full_like(batch["labels"], trainer.objective.anchors[1])
            with torch.no_grad():
                noisy = pipeline.scheduler.add_noise(batch["pixel_values"], batch["noise"], batch["timesteps"])
                target = unet(noisy, batch["timesteps"], class_labels=anchor).sample
            loss = squared_error(pipeline, batch, batch["labels"], target).mean()
        else:
            losses = squared_error(pipeline, batch)
            own, other = trainer.profile[:, batch["timesteps"] // 100]
            weights = 1 / ((losses.detach() / own).clamp(min=method.loss_floor) ** 0.5 + 1e-8)
            weights = weights * (losses < other) if bound else weights
            loss = -(weights / weights.sum().clamp(min=1e-30) * losses).sum()
        for group in forget_adam.param_groups:
            group["lr"] = LR * (1 + math.cos(math.pi * t / STEPS)) / 2
        step(forget_adam, loss, masks=masks)
        for _ in range(retain_steps):
            is_forget, batch = next(queue)
            assert not is_forget
            step(retain_adam, squared_error(pipeline, batch).mean())
        with torch.no_grad():
            for p, s in zip(unet.parameters(), slow):
                p.copy_(s + beta * (p - s))
    return pipeline


@pytest.mark.parametrize(
    ("options", "hand"),
    [
        ({"forget_loss": "match"}, {"match": True}),
        ({"forget_loss": "ascent"}, {}),
        ({"forget_loss": "ascent", "bound": "none", "retain_steps": 2, "slow_rate": 0.5}, {"bound": False}),
    ],
)
def test_sfron(tmp_path, images, options, hand):
    plain = dict(slow_form="lookahead", slow_rate=1.0, forget_learning_rate=LR, retain_steps=1, forget_alpha=1.0)
    options = {**plain, **options}
    trainer = unlearn(tmp_path, images, METHODS["sfron"](**options))
    hand = {"retain_steps": options.get("retain_steps", 1), "beta": options["slow_rate"], **hand}
    agree(trainer, sfron_hand(trainer, images, **hand))


def test_sfron_reference_is_the_released_loop(tmp_path, images):
    """One shared Adam, alpha inside the clipped loss, mask on the gradient before the clip, no merge."""
    trainer = unlearn(tmp_path, images, METHODS["sfron"].from_preset("reference", fisher_batch_size=4))
    pipeline = tiny_pipeline()
    unet = pipeline.unet.train()
    objective = NoisePrediction(tiny_pipeline())
    sets = zip(split_by_label(images, 1), (True, False))
    f, r = (fisher(objective, s, forget=g, estimator="batch", batch_size=4, seed=42)[0] for s, g in sets)
    masks = {p: (f[n] > 0) & (f[n] >= r[n]) for n, p in unet.named_parameters()}
    adam = torch.optim.AdamW(unet.parameters(), lr=LR, eps=EPS, weight_decay=0.0)
    queue = iter(trainer.seen)
    for t in range(STEPS):
        losses = squared_error(pipeline, next(queue)[1])
        weights = 1 / (losses.detach() ** 0.5 + 1e-8)
        adam.zero_grad()
        (-10 * (1 + math.cos(math.pi * t / STEPS)) / 2 * (weights / weights.sum() * losses).sum()).backward()
        for p in unet.parameters():
            p.grad *= masks[p]
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        adam.step()
        step(adam, squared_error(pipeline, next(queue)[1]).mean())
    agree(trainer, pipeline)


def finetune(pipeline, queue):
    return squared_error(pipeline, next(queue)[1]).mean()


def gradient_ascent(pipeline, queue):
    return -squared_error(pipeline, next(queue)[1]).mean()


def neg_grad_plus(pipeline, queue):
    forget, retain = next(queue)[1], next(queue)[1]
    return squared_error(pipeline, retain).mean() - 0.1 * squared_error(pipeline, forget).mean()


HAND = {"finetune": finetune, "gradient_ascent": gradient_ascent, "neg_grad_plus": neg_grad_plus}


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"sfron"}))
def test_one_step_methods(tmp_path, images, name):
    """A new method without an entry in HAND fails here."""
    trainer = unlearn(tmp_path, images, METHODS[name]())
    pipeline, queue = tiny_pipeline(), iter(trainer.seen)
    pipeline.unet.train()
    adam = torch.optim.AdamW(pipeline.unet.parameters(), lr=LR, eps=EPS, weight_decay=0.0)
    for _ in range(STEPS):
        step(adam, HAND[name](pipeline, queue))
    agree(trainer, pipeline)
