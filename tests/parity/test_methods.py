"""Every method against a hand-written loop that gets the same batches and draws, <= 1e-6 after four outer steps."""

import copy
import math

import pytest
import torch
from conftest import config, random_images, tiny_pipeline

from hf_unlearn import METHODS, NoisePrediction, UnlearnTrainer, split_by_label
from hf_unlearn.saliency.fisher import fisher

# A larger epsilon keeps Adam from blowing rounding errors of near-zero gradients up to whole steps.
LR, STEPS, EPS = 1e-3, 4, 1e-4


def unlearn(tmp_path, images, method, pipeline=None, **values):
    trainer = UnlearnTrainer(
        pipeline or tiny_pipeline(),
        config(tmp_path, max_steps=STEPS, adam_epsilon=EPS, **values),
        method,
        *split_by_label(images, 1),
    )
    trainer.seen, draw = [], trainer.step.draws.add

    def watched(batch, generator, forget, split=True):
        """Keep the batches, with their draws, that the method is given."""
        made = draw(batch, generator, forget, split)
        if split:
            trainer.seen.append((forget, {k: v.clone() for k, v in made.items()}))
        return made

    trainer.step.draws.add = watched
    trainer.train()
    return trainer


def predict(pipeline, batch, labels=None):
    """(B, C, H, W) noise prediction, written with diffusers' scheduler."""
    noisy = pipeline.scheduler.add_noise(batch["pixel_values"], batch["noise"], batch["timesteps"])
    if labels is None and "drop_labels" in batch:
        labels = torch.where(batch["drop_labels"], 4, batch["labels"])
    return pipeline.unet(noisy, batch["timesteps"], class_labels=labels).sample


def squared_error(pipeline, batch, labels=None, target=None):
    """(B,) mean squared error of the noise prediction."""
    out = predict(pipeline, batch, labels)
    return ((out - (batch["noise"] if target is None else target)) ** 2).mean((1, 2, 3))


def agree(trainer, pipeline, start):
    ours, hand, start = (p.unet.state_dict() for p in (trainer.objective.pipeline, pipeline, start))
    assert max((ours[n] - hand[n]).abs().max().item() for n in ours) <= 1e-6
    assert max((ours[n] - start[n]).abs().max().item() for n in ours) > 1e-4


def step(optimizer, loss, max_norm=1.0, masks=None):
    optimizer.zero_grad()
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    for p in parameters if masks is not None else ():
        p.grad *= masks[p]
    optimizer.step()


def sfron_hand(trainer, images, pipeline):
    """Algorithm 1: a masked forget step, K retain steps, the merge. Returns how many samples the bound stopped."""
    unet, method = pipeline.unet.train(), trainer.step.method
    match, bound, margin = method.forget_loss == "match", method.bound, method.bound_margin
    assert trainer.method.bound_margin or margin == {"own": 2.0, "other": 1.0, "none": None}[bound]
    original = copy.deepcopy(pipeline)
    objective = NoisePrediction(copy.deepcopy(pipeline))
    sets = zip(split_by_label(images, 1), (True, False))
    f, r = (fisher(objective, s, forget=g, max_samples=512, seed=42)[0] for s, g in sets)
    masks = {p: (f[n] > 0) & (f[n] >= r[n]) for n, p in unet.named_parameters()}
    retain_adam = torch.optim.AdamW(unet.parameters(), lr=LR, eps=EPS, weight_decay=0.0)
    forget_adam, forget_lr = retain_adam, LR
    if method.forget_optim == "separate":
        forget_lr = method.forget_learning_rate or LR
        forget_adam = torch.optim.AdamW(unet.parameters(), lr=forget_lr, eps=EPS, weight_decay=0.0)
    queue, stopped = iter(trainer.seen), 0
    for t in range(STEPS):
        slow = [p.detach().clone() for p in unet.parameters()]
        is_forget, batch = next(queue)
        assert is_forget
        if match:
            anchor = torch.full_like(batch["labels"], trainer.objective.anchors[1])
            with torch.no_grad():
                target = predict(pipeline, batch, anchor)
            loss = squared_error(pipeline, batch, batch["labels"], target).mean()
        else:
            losses = squared_error(pipeline, batch)
            relative = losses.detach()
            if method.timestep_normalise:
                relative = relative / trainer.reference.baseline_losses[0, batch["timesteps"] // 100]
            weights = 1 / (relative.clamp(min=method.loss_floor) ** 0.5 + 1e-8)
            if bound != "none":
                limit = (
                    margin
                    * trainer.reference.baseline_losses[("own", "other").index(bound), batch["timesteps"] // 100]
                )
                stopped += int((losses >= limit).sum())
                weights = weights * (losses < limit)
            loss = -(weights / weights.sum().clamp(min=1e-30) * losses).sum()
        alpha = method.forget_alpha * (1 + math.cos(math.pi * t / STEPS)) / 2
        for group in forget_adam.param_groups:
            group["lr"] = forget_lr * alpha
        step(forget_adam, loss, masks=masks)
        with torch.no_grad():  # whatever momentum did outside the mask is taken back
            for p, s in zip(unet.parameters(), slow):
                p.copy_(torch.where(masks[p], p, s))
        for group in retain_adam.param_groups:
            group["lr"] = LR
        for _ in range(method.retain_steps):
            is_forget, batch = next(queue)
            assert not is_forget
            with torch.no_grad():
                target = predict(original, batch) if method.retain_loss == "match" else None
            step(retain_adam, squared_error(pipeline, batch, target=target).mean())
        with torch.no_grad():
            for p, s in zip(unet.parameters(), slow):
                p.copy_(s + method.slow_rate * (p - s))
    assert next(queue, None) is None
    return stopped


ASCENT = {"preset": "stable", "forget_loss": "ascent"}


@pytest.mark.parametrize(
    ("options", "stops"),
    [
        ({"preset": "stable"}, False),
        ({**ASCENT, "retain_steps": 1, "forget_learning_rate": 2e-3}, False),
        ({**ASCENT, "retain_steps": 2, "slow_rate": 0.5}, False),
        ({"preset": "stable", "retain_loss": "data"}, False),
        ({**ASCENT, "bound": "own", "bound_margin": 1.02}, True),
        ({**ASCENT, "bound": "none", "timestep_normalise": False}, False),
        ({"preset": "paper"}, False),
    ],
    ids=["match", "rate", "lookahead", "data", "bound", "unbounded", "paper"],
)
def test_sfron(tmp_path, images, options, stops):
    trainer = unlearn(tmp_path, images, METHODS["sfron"].from_preset(**options))
    pipeline = tiny_pipeline()
    stopped = sfron_hand(trainer, images, pipeline)
    agree(trainer, pipeline, tiny_pipeline())
    assert not stops or 0 < stopped < 4 * STEPS


def test_sfron_without_labels(tmp_path, images, unconditional):
    """An unconditional model cannot match: bounded ascent instead."""
    start = copy.deepcopy(unconditional)
    trainer = unlearn(tmp_path, images, METHODS["sfron"](bound_margin=1.02), copy.deepcopy(unconditional))
    assert 0 < sfron_hand(trainer, images, unconditional) < 4 * STEPS
    agree(trainer, unconditional, start)


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
    agree(trainer, pipeline, tiny_pipeline())


def finetune(pipeline, queue):
    return squared_error(pipeline, next(queue)[1]).mean()


def gradient_ascent(pipeline, queue):
    return -squared_error(pipeline, next(queue)[1]).mean()


def neg_grad_plus(pipeline, queue):
    forget, retain = next(queue)[1], next(queue)[1]
    return squared_error(pipeline, retain).mean() - 0.1 * squared_error(pipeline, forget).mean()


def random_label(pipeline, queue):
    """Another class as the target: the prediction under the next retained label."""
    forget, retain = next(queue)[1], next(queue)[1]
    with torch.no_grad():
        target = predict(pipeline, forget, torch.full_like(forget["labels"], 2))
    return squared_error(pipeline, retain).mean() + squared_error(pipeline, forget, target=target).mean()


def esd(pipeline, queue):
    """η = 1; the original and its null label 4."""
    forget, start = next(queue)[1], tiny_pipeline()
    with torch.no_grad():
        null, own = (predict(start, forget, n) for n in (torch.full_like(forget["labels"], 4), None))
    return squared_error(pipeline, forget, target=null - (own - null)).mean()


def concept_ablation(pipeline, queue):
    forget, retain = next(queue)[1], next(queue)[1]
    with torch.no_grad():
        target = predict(pipeline, forget, torch.full_like(forget["labels"], 2))
    return squared_error(pipeline, forget, target=target).mean() + squared_error(pipeline, retain).mean()


def selective_amnesia(pipeline, queue):
    """λ = 50, the Fisher of the original on retain data, a uniform image by the sample's position and timestep."""
    forget, retain, start = next(queue)[1], next(queue)[1], tiny_pipeline()
    data = split_by_label(random_images(), 1)[1]
    found = fisher(NoisePrediction(start), data, forget=False, max_samples=512, seed=42)[0]
    moved = {n: p - start.unet.get_parameter(n).detach() for n, p in pipeline.unet.named_parameters()}
    elastic = sum((found[n] * move**2).sum() for n, move in moved.items())
    seeds = zip(forget["index"].tolist(), forget["timesteps"].tolist())
    drawn = [torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(i * 1_000_003 + t)) for i, t in seeds]
    surrogate = {**forget, "pixel_values": 2 * torch.stack(drawn) - 1}
    return squared_error(pipeline, surrogate).mean() + squared_error(pipeline, retain).mean() + 25 * elastic


HAND = {
    "esd": esd,
    "concept_ablation": concept_ablation,
    "selective_amnesia": selective_amnesia,
    "finetune": finetune,
    "gradient_ascent": gradient_ascent,
    "neg_grad_plus": neg_grad_plus,
    "random_label": random_label,
}


@pytest.mark.parametrize("name", sorted(HAND))
def test_one_step_methods(tmp_path, images, name):
    """The others take the same code path with another objective: see test_classification.py, which has all methods."""
    trainer = unlearn(tmp_path, images, METHODS[name]())
    pipeline, queue = tiny_pipeline(), iter(trainer.seen)
    pipeline.unet.train()
    adam = torch.optim.AdamW(pipeline.unet.parameters(), lr=LR, eps=EPS, weight_decay=0.0)
    for _ in range(STEPS):
        step(adam, HAND[name](pipeline, queue))
    agree(trainer, pipeline, tiny_pipeline())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_methods_on_a_diffusion_model(tmp_path, images, name):
    """Each one either changes the weights, finitely, or says at construction that it is for other models."""
    if METHODS[name].family not in ("", "diffusion"):
        with pytest.raises(ValueError, match=f"works for {METHODS[name].family} models only"):
            unlearn(tmp_path, images, METHODS[name]())
        return
    trainer = unlearn(tmp_path, images, METHODS[name](**({"selection": 1.2} if name == "ssd" else {})))
    ours, start = trainer.objective.network.state_dict(), tiny_pipeline().unet.state_dict()
    assert all(v.isfinite().all() for v in ours.values())
    assert any(not torch.equal(v, start[n]) for n, v in ours.items())


def test_accumulated_steps_are_the_mean_of_their_micro_batches(tmp_path, images):
    """Two micro-batches a step: the loss is scaled once, and draws differ between all micro-batches.

    SGD without a clip, because neither Adam nor a clipped step sees the scale of a loss.
    """
    values = dict(gradient_accumulation_steps=2, optim="sgd", learning_rate=0.1, max_grad_norm=0)
    trainer = unlearn(tmp_path, images, METHODS["neg_grad_plus"](), **values)
    pipeline, queue = tiny_pipeline(), iter(trainer.seen)
    pipeline.unet.train()
    sgd = torch.optim.SGD(pipeline.unet.parameters(), lr=0.1)
    for _ in range(STEPS):
        step(sgd, (neg_grad_plus(pipeline, queue) + neg_grad_plus(pipeline, queue)) / 2, max_norm=math.inf)
    assert next(queue, None) is None
    agree(trainer, pipeline, tiny_pipeline())
    noises = [batch["noise"] for _, batch in trainer.seen]
    assert len(noises) == 4 * STEPS
    assert not any(torch.equal(a, b) for i, a in enumerate(noises) for b in noises[:i])
